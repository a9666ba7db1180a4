"""Chosen tests of the native machine once more, on each CPU target that would not be taken by itself here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recurra.kernels.cpu import targets

TESTS = Path(__file__).parents[1]
BY_ITSELF, *OTHERS = [name for name, runs in reversed(targets().items()) if runs] or [None]
DRAWN = "engine/test_random_cells.py::test_drawn_cells_equal_the_plain_loop"
CHOSEN = [
    "engine/test_native.py::test_a_sequence_has_the_same_bits_in_any_batch",  # every cell, and every part of a vector
    "engine/test_native.py::test_teams_change_no_bits[layer_norm_lstm-7]",
    "engine/test_native.py::test_teams_change_no_bits[slstm_heads-40]",
    "engine/test_conformance.py::TestNative_heads",
    *(f"{DRAWN}[seeds {n} to {n + 49}]" for n in (0, 50, 100)),
]


@pytest.mark.parametrize("name", OTHERS)
def test_chosen_tests_pass_on(name):
    """In a process of its own: a target is chosen once in the life of a process."""
    options = ["-q", "-p", "no:cacheprovider", "--capture=sys"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(str(TESTS / test) for test in CHOSEN)],
        env=os.environ | {"RECURRA_CPU_TARGET": name},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
