"""The mathematics: one file, one cell, one step. The table of names is here."""

from typing import Any

from recurra.cells.base import INITS, Cell, HiddenState
from recurra.cells.chrono import chrono
from recurra.cells.coupled_lstm import CoupledLSTMCell
from recurra.cells.gru import GRUCell
from recurra.cells.ind_rnn import IndRNNCell
from recurra.cells.layer_norm_gru import LayerNormGRUCell
from recurra.cells.layer_norm_lstm import LayerNormLSTMCell
from recurra.cells.li_gru import LiGRUCell
from recurra.cells.lru import LRUCell, LRUState
from recurra.cells.lstm import LSTMCell, LSTMState
from recurra.cells.lstmp import LSTMPCell, LSTMPState
from recurra.cells.mgu import MGUCell
from recurra.cells.min_gru import MinGRUCell
from recurra.cells.min_lstm import MinLSTMCell
from recurra.cells.peephole_lstm import PeepholeLSTMCell
from recurra.cells.qrnn import QRNNCell, QRNNState
from recurra.cells.rg_lru import RGLRUCell
from recurra.cells.rnn import RNNCell
from recurra.cells.slstm import SLSTMCell, SLSTMState
from recurra.cells.sru import SRUCell, SRUState
from recurra.cells.wrap import (
    WRAPPERS,
    Wrapper,
    learned_state,
    recurrent_dropout,
    residual,
    weight_drop,
    zoneout,
)
from recurra.errors import UnknownNameError

CELLS: dict[str, type[Cell[Any]]] = {
    "rnn": RNNCell,
    "lstm": LSTMCell,
    "gru": GRUCell,
    "lstmp": LSTMPCell,
    "layer_norm_lstm": LayerNormLSTMCell,
    "peephole_lstm": PeepholeLSTMCell,
    "coupled_lstm": CoupledLSTMCell,
    "slstm": SLSTMCell,
    "layer_norm_gru": LayerNormGRUCell,
    "mgu": MGUCell,
    "li_gru": LiGRUCell,
    "ind_rnn": IndRNNCell,
    "sru": SRUCell,
    "qrnn": QRNNCell,
    "min_gru": MinGRUCell,
    "min_lstm": MinLSTMCell,
    "lru": LRUCell,
    "rg_lru": RGLRUCell,
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
    "WRAPPERS",
    "Cell",
    "CoupledLSTMCell",
    "GRUCell",
    "HiddenState",
    "IndRNNCell",
    "LRUCell",
    "LRUState",
    "LSTMCell",
    "LSTMPCell",
    "LSTMPState",
    "LSTMState",
    "LayerNormGRUCell",
    "LayerNormLSTMCell",
    "LiGRUCell",
    "MGUCell",
    "MinGRUCell",
    "MinLSTMCell",
    "PeepholeLSTMCell",
    "QRNNCell",
    "QRNNState",
    "RGLRUCell",
    "RNNCell",
    "SLSTMCell",
    "SLSTMState",
    "SRUCell",
    "SRUState",
    "Wrapper",
    "cell_named",
    "chrono",
    "learned_state",
    "recurrent_dropout",
    "residual",
    "weight_drop",
    "zoneout",
]
