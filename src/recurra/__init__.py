"""Recurrent networks: write one step of a cell; Recurra derives the rest.

Names are resolved when first used: ``import recurra`` alone imports neither torch nor anything else that is heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> the module that defines it; adding a public name is adding a row here and below, for type checkers.
_NAMES = {
    "Cell": "cells",
    "CoupledLSTMCell": "cells",
    "GRUCell": "cells",
    "HiddenState": "cells",
    "IndRNNCell": "cells",
    "LRUCell": "cells",
    "LRUState": "cells",
    "LSTMCell": "cells",
    "LSTMPCell": "cells",
    "LSTMPState": "cells",
    "LSTMState": "cells",
    "LayerNormGRUCell": "cells",
    "LayerNormLSTMCell": "cells",
    "LiGRUCell": "cells",
    "MGUCell": "cells",
    "MinGRUCell": "cells",
    "MinLSTMCell": "cells",
    "PeepholeLSTMCell": "cells",
    "QRNNCell": "cells",
    "QRNNState": "cells",
    "RGLRUCell": "cells",
    "RNNCell": "cells",
    "SLSTMCell": "cells",
    "SLSTMState": "cells",
    "SRUCell": "cells",
    "SRUState": "cells",
    "chrono": "cells",
    "learned_state": "cells",
    "recurrent_dropout": "cells",
    "residual": "cells",
    "weight_drop": "cells",
    "zoneout": "cells",
    "executors": "engine",
    "explain": "engine",
    "options": "engine",
    "plan_for": "engine",
    "scan": "engine",
    "GRU": "layers",
    "LSTM": "layers",
    "LayerState": "layers",
    "RNN": "layers",
    "Recurrent": "layers",
    "Stream": "layers",
    "accelerate": "layers",
    "tbptt": "layers",
}
_MODULES = ("cells", "data", "diagnose", "engine", "errors", "layers", "shapes", "steps", "tasks", "testing", "train")

if TYPE_CHECKING:
    from recurra import cells, data, diagnose, engine, errors, layers, shapes, steps, tasks, testing, train
    from recurra.cells import (
        Cell,
        CoupledLSTMCell,
        GRUCell,
        HiddenState,
        IndRNNCell,
        LayerNormGRUCell,
        LayerNormLSTMCell,
        LiGRUCell,
        LRUCell,
        LRUState,
        LSTMCell,
        LSTMPCell,
        LSTMPState,
        LSTMState,
        MGUCell,
        MinGRUCell,
        MinLSTMCell,
        PeepholeLSTMCell,
        QRNNCell,
        QRNNState,
        RGLRUCell,
        RNNCell,
        SLSTMCell,
        SLSTMState,
        SRUCell,
        SRUState,
        chrono,
        learned_state,
        recurrent_dropout,
        residual,
        weight_drop,
        zoneout,
    )
    from recurra.engine import executors, explain, options, plan_for, scan
    from recurra.layers import GRU, LSTM, RNN, LayerState, Recurrent, Stream, accelerate, tbptt

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
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
    "LayerState",
    "LiGRUCell",
    "MGUCell",
    "MinGRUCell",
    "MinLSTMCell",
    "PeepholeLSTMCell",
    "QRNNCell",
    "QRNNState",
    "RGLRUCell",
    "RNNCell",
    "Recurrent",
    "SLSTMCell",
    "SLSTMState",
    "SRUCell",
    "SRUState",
    "Stream",
    "__version__",
    "accelerate",
    "cells",
    "chrono",
    "data",
    "diagnose",
    "engine",
    "errors",
    "executors",
    "explain",
    "layers",
    "learned_state",
    "options",
    "plan_for",
    "recurrent_dropout",
    "residual",
    "scan",
    "shapes",
    "steps",
    "tasks",
    "tbptt",
    "testing",
    "train",
    "weight_drop",
    "zoneout",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"recurra.{name}")
    if name in _NAMES:
        return globals().setdefault(name, getattr(import_module(f"recurra.{_NAMES[name]}"), name))
    raise AttributeError(f"module 'recurra' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
