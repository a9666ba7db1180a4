"""The plans of the shipped cells, kept: a refactoring changes none of them, and a change must be explained.

``python tests/engine/test_golden_plans.py`` writes them anew.
"""

from functools import partial
from pathlib import Path

import pytest

from recurra.cells import CELLS, GRUCell
from recurra.engine import explain
from recurra.engine.derive import derive
from recurra.engine.lowered import contractions
from recurra.kernels.cpu import native
from recurra.kernels.lower import lower

GOLDEN = Path(__file__).parent / "golden"
MAKES = {**CELLS, "gru_before": partial(GRUCell, reset="before")}


def plan_of(name):
    """What is explained of a cell, its graph, and the machine's programs for a training step."""
    cell = MAKES[name](50, 100)
    found = explain(cell, T=500, B=64)
    forward = derive(cell).forward
    step = derive(cell).backward(frozenset([0]), frozenset(), frozenset(forward.weights)).step
    keep = [i for i in step.saved if i not in forward.graph.inputs]
    first = len(forward.graph.outputs)
    programs = (
        lower(forward.staged, outputs=forward.graph.outputs, keep=keep),
        lower(
            step.staged,
            outputs=[step.staged.graph.outputs[o] for o in step.inputs.values()],
            taped=[first + step.saved.index(i) for i in keep],
            contractions=contractions(step),
        ),
    )
    return "\n\n".join(map(str, (found, found.graph, *programs))) + "\n"


@pytest.mark.skipif(native() is None, reason="the plans kept are those of an install with the native machine")
@pytest.mark.parametrize("name", MAKES)
def test_plans_are_those_that_were_kept(name):
    assert plan_of(name) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    for each in MAKES:
        (GOLDEN / f"{each}.txt").write_text(plan_of(each), encoding="utf-8")
