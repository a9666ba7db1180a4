"""No number of a red test: what is measured must first be shown to be right."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.contenders import CONTENDERS, Material, Run
from recurra.testing import assert_within_eps, relative_error

ROOT = Path(__file__).parents[1]
CONFORMANCE = "tests/engine/test_conformance.py"


def conformance(cell: str, executors: Sequence[str], *, root: Path = ROOT) -> tuple[bool, str]:
    """Whether the conformance tests of a cell, and of these executors for it, pass; and what pytest said last.

    Anything but at least one test and all of them green is red: no tests collected, a suite of that name missing.
    """
    suites = [f"TestCell_{cell}", *(f"Test{e.capitalize()}_{cell}" for e in executors)]
    tests = [f"{CONFORMANCE}::{suite}" for suite in suites]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-r", "fE", *tests]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    refusal = [line for line in lines if line.startswith("ERROR: ")]  # of pytest itself, not of a test
    said = [*lines[-1:], *refusal, "pytest said nothing"]
    return done.returncode == 0, re.sub(r"^=+ | =+$", "", said[1 if refusal else 0])


def assert_equal_work(material: Material, calls: dict[str, Run]) -> None:
    """All calls compute the same, at the very size that is timed: within the package's rule of exactness.

    Raises:
        AssertionError: a result is further from the float64 loop than 8 rounding steps or 3 times the float32 loop.
    """
    loop = {k: v.clone() for k, v in calls["eager loop"]().items()}
    exact = CONTENDERS["eager loop"](material.to(torch.float64))
    assert not isinstance(exact, str)
    reference = exact()
    material.cell.to(torch.float32)
    for contender, call in calls.items():
        for name, value in call().items():
            own = relative_error(loop[name], reference[name])
            assert_within_eps(value, reference[name], own=own, what=f"{contender}: {name}")
    assert all(relative_error(loop[name], reference[name]) < 1e5 for name in loop)  # chaos would excuse anything
