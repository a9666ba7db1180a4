"""Recurrent networks: write one step of a cell; Recurra derives the rest.

Names are resolved when first used: ``import recurra`` alone imports neither torch nor anything else that is heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> the module that defines it; adding a public name is adding a row here and below, for type checkers.
_NAMES = {
    "Cell": "cells",
    "GRUCell": "cells",
    "HiddenState": "cells",
    "LSTMCell": "cells",
    "LSTMPCell": "cells",
    "LSTMPState": "cells",
    "LSTMState": "cells",
    "LayerNormLSTMCell": "cells",
    "MinGRUCell": "cells",
    "RNNCell": "cells",
    "LayerState": "layers",
    "Recurrent": "layers",
    "executors": "engine",
    "explain": "engine",
    "options": "engine",
    "plan_for": "engine",
    "scan": "engine",
}
_MODULES = ("cells", "data", "engine", "errors", "layers", "shapes", "steps", "tasks", "testing", "train")

if TYPE_CHECKING:
    from recurra import cells, data, engine, errors, layers, shapes, steps, tasks, testing, train
    from recurra.cells import (
        Cell,
        GRUCell,
        HiddenState,
        LayerNormLSTMCell,
        LSTMCell,
        LSTMPCell,
        LSTMPState,
        LSTMState,
        MinGRUCell,
        RNNCell,
    )
    from recurra.engine import executors, explain, options, plan_for, scan
    from recurra.layers import LayerState, Recurrent

__all__ = [
    "Cell",
    "GRUCell",
    "HiddenState",
    "LSTMCell",
    "LSTMPCell",
    "LSTMPState",
    "LSTMState",
    "LayerNormLSTMCell",
    "LayerState",
    "MinGRUCell",
    "RNNCell",
    "Recurrent",
    "__version__",
    "cells",
    "data",
    "engine",
    "errors",
    "executors",
    "explain",
    "layers",
    "options",
    "plan_for",
    "scan",
    "shapes",
    "steps",
    "tasks",
    "testing",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"recurra.{name}")
    if name in _NAMES:
        return globals().setdefault(name, getattr(import_module(f"recurra.{_NAMES[name]}"), name))
    raise AttributeError(f"module 'recurra' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
