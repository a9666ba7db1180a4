"""One task, one file."""

from typing import Any

__all__ = ["TextClassifier"]


def __getattr__(name: str) -> Any:
    # Lazy: the presets must be readable for a command's help, without torch.
    if name == "TextClassifier":
        from recurra.tasks.classify import TextClassifier

        return TextClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
