"""No number of a red test: what is measured must first be shown to be right."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import Tensor

from benchmarks.cases import ROUNDED
from benchmarks.cells import OWN
from benchmarks.contenders import CONTENDERS, EXTRA, OTHER_WORK, Material
from benchmarks.torch_modules import Run
from recurra.testing import assert_within_eps, relative_error

ROOT = Path(__file__).parents[1]
CONFORMANCE = "tests/engine/test_conformance.py"
CONFORMANCE_OF_OWN = "benchmarks/conformance.py"
NEAR_ROUNDED = 0.05  # relative by norm, where matrices have 8 bits of mantissa
NEAR = 1e-4  # other packages round otherwise, and some have their own tanh: equal work, not equal bits

Verdict = tuple[bool, str]


def conformance(
    wanted: Mapping[str, Sequence[str]], *, cells: bool = True, jobs: int = 1, root: Path = ROOT
) -> dict[str, Verdict]:
    """Whether the conformance tests of each cell, and of these executors for it, pass; and what is to be said of it.

    Anything but at least one test in each suite and all of them green is red: no tests, a suite that is missing.

    Args:
        wanted: cell -> executors. cells: also run the suite of the cell itself (its gradients, its shapes).
        jobs: so many processes, where pytest-xdist is installed.
    """
    suites = {cell: [*([f"TestCell_{cell}"] * cells), *(f"Test{e.capitalize()}_{cell}" for e in executors)]
              for cell, executors in wanted.items()}  # fmt: skip
    tests = {s: CONFORMANCE_OF_OWN if cell in OWN else CONFORMANCE for cell, ss in suites.items() for s in ss}
    said, results = _run(tests, jobs, root)
    missing = {s for s in tests if re.search(rf"not found: \S*::{s}\b", said)}
    if missing and (rest := {s: file for s, file in tests.items() if s not in missing}):
        said, results = _run(rest, jobs, root)  # pytest ran nothing at all because of them
    return {cell: _verdict(ss, missing, results, said) for cell, ss in suites.items()}


def _run(tests: Mapping[str, str], jobs: int, root: Path) -> tuple[str, list[tuple[str, str]]]:
    """What pytest said last, and (suite, outcome) of each test."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--no-header",
            "-r",
            "fE",
            "--maxfail=20",
            f"--junitxml={report}",
        ]
        command += ["-n", str(jobs)] if jobs > 1 and find_spec("xdist") else []
        command += [f"{file}::{suite}" for suite, file in tests.items()]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        cases = ElementTree.parse(report).iter("testcase") if report.exists() else ()
        outcomes = [(c.get("classname", "").rsplit(".", 1)[-1], c[0].tag if len(c) else "passed") for c in cases]
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    refusals = [line for line in lines if line.startswith("ERROR: ")]  # of pytest itself, not of a test
    return "\n".join(refusals or lines[-1:]) or "pytest said nothing", outcomes


def _verdict(suites: Sequence[str], missing: set[str], results: list[tuple[str, str]], said: str) -> Verdict:
    lost = [s for s in suites if s in missing]
    if lost:
        return False, f"not found: {', '.join(lost)}"
    count = {s: [outcome for suite, outcome in results if suite == s] for s in suites}
    bad = sum(outcome in ("failure", "error") for outcomes in count.values() for outcome in outcomes)
    passed = sum(outcome == "passed" for outcomes in count.values() for outcome in outcomes)
    if bad:
        return False, f"{bad} failed, {passed} passed"
    empty = [s for s in suites if "passed" not in count[s]]
    if empty:
        return False, f"no tests ran in {', '.join(empty)}: {said.splitlines()[0]}"
    return True, f"{passed} passed"


def assert_equal_work(material: Material, calls: Mapping[str, Run]) -> None:
    """All calls compute the same, at the very size that is timed: within the package's rule of exactness.

    Raises:
        AssertionError: a result of this process is further from the float64 loop than 8 rounding steps or 3 times the
            float32 loop. Those of other processes are left to :func:`unequal`.
    """
    loop = {k: v.clone() for k, v in calls["eager loop"]().items()}
    exact = CONTENDERS["eager loop"](material.to(torch.float64))
    assert not isinstance(exact, str)
    reference = exact()
    material.cell.to(torch.float32)
    for contender in {**CONTENDERS, **EXTRA}:
        for name, value in calls[contender]().items() if contender in calls and contender not in OTHER_WORK else ():
            if contender == ROUNDED:
                error = ((value - reference[name]).norm() / reference[name].norm()).item()
                assert error <= NEAR_ROUNDED, f"{contender}: {name} is off by {error:.2g}, relative by norm"
                continue
            own = relative_error(loop[name], reference[name])
            assert_within_eps(value, reference[name], own=own, what=f"{contender}: {name}")
    assert all(relative_error(loop[name], reference[name]) < 1e5 for name in loop)  # chaos would excuse anything


def unequal(reference: Mapping[str, Tensor], calls: Mapping[str, Run]) -> dict[str, str]:
    """Those whose results are further from the reference than ``NEAR``, relative by norm; and what is wrong."""
    found = {}
    for contender, call in calls.items():
        for name, value in call().items():
            error = ((value - reference[name]).norm() / reference[name].norm()).item()
            if not error <= NEAR:  # NaN is not near
                found[contender] = f"unequal work: {name} is off by {error:.2g}, relative by norm"
    return found
