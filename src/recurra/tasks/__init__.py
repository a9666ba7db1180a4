"""One task, one file."""

import importlib
from typing import Any

_NAMES = {"TextClassifier": "classify", "Summarizer": "summarize"}  # name -> the file it stands in

__all__ = ["Summarizer", "TextClassifier"]


def __getattr__(name: str) -> Any:
    # Lazy: the presets must be readable for a command's help, without torch.
    if name in _NAMES:
        return getattr(importlib.import_module(f"recurra.tasks.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
