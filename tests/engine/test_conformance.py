"""Every executor against the plain loop, for every cell of the table and for cells that no executor has seen."""

from functools import partial

import pytest
from cells_of_others import Heads, Odd, Stopped, Unseen

from recurra.cells import (
    CELLS,
    GRUCell,
    LSTMCell,
    RNNCell,
    SLSTMCell,
    learned_state,
    recurrent_dropout,
    residual,
    weight_drop,
    zoneout,
)
from recurra.testing import CellConformance, ExecutorConformance

MAKES = {
    **CELLS,
    "gru_before": partial(GRUCell, reset="before"),
    "rnn_relu": partial(RNNCell, nonlinearity="relu"),
    "slstm_heads": lambda D, H: SLSTMCell(D, 2 * H, num_heads=2),
    # Masks of frames and sequences are inputs of a step, and drawn here like any other; those of weights are not.
    "zoneout": lambda D, H: zoneout(LSTMCell(D, H), {"h": 0.1, "c": 0.5}),
    "recurrent_dropout": lambda D, H: recurrent_dropout(GRUCell(D, H), 0.3),
    "weight_drop": lambda D, H: weight_drop(LSTMCell(D, H), 0.5).eval(),
    "residual": lambda D, H: residual(RNNCell(D, D)),
    "learned_state": lambda D, H: learned_state(LSTMCell(D, H)),
    "all_around": lambda D, H: residual(recurrent_dropout(learned_state(zoneout(LSTMCell(D, D), 0.2)), 0.3)),
    "unseen": Unseen,
    "heads": Heads,
    "odd": Odd,
    "stopped": Stopped,
}
VENDOR = ("rnn", "rnn_relu", "lstm", "gru", "lstmp")
LINEAR = ("qrnn", "min_gru", "min_lstm", "lru", "rg_lru")


def _suites():
    for name, make in MAKES.items():
        fields = {"make": staticmethod(make)}
        if name != "stopped":
            yield f"TestCell_{name}", CellConformance, fields
        yield f"TestStaged_{name}", ExecutorConformance, fields | {"executor": "staged"}
        yield f"TestNative_{name}", ExecutorConformance, fields | {"executor": "native"}
        if name in VENDOR:
            yield f"TestTorch_{name}", ExecutorConformance, fields | {"executor": "torch"}
        if name in LINEAR:
            yield f"TestAssociative_{name}", ExecutorConformance, fields | {"executor": "associative"}


for _name, _suite, _fields in _suites():
    globals()[_name] = type(_name, (_suite,), _fields)


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_of_the_table_is_under_test(name):
    assert f"TestCell_{name}" in globals()
    assert f"TestStaged_{name}" in globals()
    assert f"TestNative_{name}" in globals()
