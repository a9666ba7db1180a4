"""The mathematics: one file, one cell, one step. The table of names is here."""

from typing import Any

from recurra.cells.base import INITS, Cell, HiddenState
from recurra.cells.gru import GRUCell
from recurra.cells.layer_norm_lstm import LayerNormLSTMCell
from recurra.cells.lstm import LSTMCell, LSTMState
from recurra.cells.lstmp import LSTMPCell, LSTMPState
from recurra.cells.min_gru import MinGRUCell
from recurra.cells.rnn import RNNCell
from recurra.errors import UnknownNameError

CELLS: dict[str, type[Cell[Any]]] = {
    "rnn": RNNCell,
    "lstm": LSTMCell,
    "gru": GRUCell,
    "lstmp": LSTMPCell,
    "layer_norm_lstm": LayerNormLSTMCell,
    "min_gru": MinGRUCell,
}


def cell_named(name: str) -> type[Cell[Any]]:
    """The cell of that name.

    Raises:
        UnknownNameError: there is none; the nearest name is suggested.

    Example:
        >>> cell_named("lstm").__name__
        'LSTMCell'
    """
    if name not in CELLS:
        raise UnknownNameError("cell", name, CELLS)
    return CELLS[name]


__all__ = [
    "CELLS",
    "INITS",
    "Cell",
    "GRUCell",
    "HiddenState",
    "LSTMCell",
    "LSTMPCell",
    "LSTMPState",
    "LSTMState",
    "LayerNormLSTMCell",
    "MinGRUCell",
    "RNNCell",
    "cell_named",
]
