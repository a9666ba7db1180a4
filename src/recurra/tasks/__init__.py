"""One task, one file."""

from importlib import import_module
from typing import Any

# name -> the file that defines it
_NAMES = {"LanguageModel": "language", "Summarizer": "summarize", "TextClassifier": "classify"}

__all__ = ["LanguageModel", "Summarizer", "TextClassifier"]


def __getattr__(name: str) -> Any:
    # Lazy: the presets must be readable for a command's help, without torch.
    if name in _NAMES:
        return getattr(import_module(f"recurra.tasks.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
