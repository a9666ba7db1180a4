"""The plans of the shipped cells, kept: a refactoring changes none of them, and a change must be explained.

``python tests/engine/test_golden_plans.py`` writes them anew.
"""

from functools import partial
from pathlib import Path

import pytest

from recurra.cells import CELLS, GRUCell
from recurra.engine import explain

GOLDEN = Path(__file__).parent / "golden"
MAKES = {**CELLS, "gru_before": partial(GRUCell, reset="before")}


def plan_of(name):
    found = explain(MAKES[name](50, 100), T=500, B=64)
    return f"{found}\n\n{found.graph}\n"


@pytest.mark.parametrize("name", MAKES)
def test_plans_are_those_that_were_kept(name):
    assert plan_of(name) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    for each in MAKES:
        (GOLDEN / f"{each}.txt").write_text(plan_of(each), encoding="utf-8")
