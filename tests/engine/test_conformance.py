"""Every executor against the plain loop, for every cell of the table and for cells that no executor has seen."""

from functools import partial

import pytest
from cells_of_others import Heads, Odd, Stopped, Unseen

from recurra.cells import CELLS, GRUCell, RNNCell
from recurra.testing import CellConformance, ExecutorConformance

MAKES = {
    **CELLS,
    "gru_before": partial(GRUCell, reset="before"),
    "rnn_relu": partial(RNNCell, nonlinearity="relu"),
    "unseen": Unseen,
    "heads": Heads,
    "odd": Odd,
    "stopped": Stopped,
}
VENDOR = ("rnn", "rnn_relu", "lstm", "gru", "lstmp")


def _suites():
    for name, make in MAKES.items():
        fields = {"make": staticmethod(make)}
        if name != "stopped":
            yield f"TestCell_{name}", CellConformance, fields
        yield f"TestStaged_{name}", ExecutorConformance, fields | {"executor": "staged"}
        if name in VENDOR:
            yield f"TestTorch_{name}", ExecutorConformance, fields | {"executor": "torch"}


for _name, _suite, _fields in _suites():
    globals()[_name] = type(_name, (_suite,), _fields)


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_of_the_table_is_under_test(name):
    assert f"TestCell_{name}" in globals()
    assert f"TestStaged_{name}" in globals()
