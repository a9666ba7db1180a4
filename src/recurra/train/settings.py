"""How a network is fitted, apart from what it is."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from recurra.errors import OptionError, UnknownNameError

# name -> whether more is better
MONITORS = {"valid_accuracy": True, "valid_loss": False}
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """The settings of one training.

    Attributes:
        learning_rate: the highest, after the warm-up.
        optimizer: ``"adamw"``, or ``"sgd"``, plain gradient descent without momentum, whose rates are larger by far.
        weight_decay: of AdamW; at 0 that is Adam. Of gradient descent, a penalty.
        max_epochs: at most that many passes over the training data.
        patience: stop after so many epochs without a better `monitor`; None: never.
        monitor: the figure that decides which epoch is the best: ``"valid_accuracy"`` or ``"valid_loss"``.
        clip: scale gradients down to this norm; None: leave them.
        schedule: the learning rate after the warm-up, towards the last of `max_epochs`: ``"constant"``, ``"linear"``
            or ``"cosine"``, the latter two down to zero.
        warmup: the part of all steps in which the learning rate rises from zero.
        accelerator: where to train: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        backward_memory: what is kept for the backward pass of each recurrent layer, as ``save`` of
            :func:`recurra.options`: ``"all"``; ``"sqrt"``, for sequences so long that all would not fit; or bytes.
            Gradients are exact in any case.

    Raises:
        OptionError: a value is out of its range. UnknownNameError: no monitor, optimizer or schedule has that name.
    """

    learning_rate: float = 1e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    max_epochs: int = 10
    patience: int | None = 3
    monitor: str = "valid_accuracy"
    clip: float | None = 1.0
    schedule: str = "constant"
    warmup: float = 0.0
    accelerator: str = "auto"
    backward_memory: str | int = "all"

    def __post_init__(self) -> None:
        """Check every value."""
        require_number("learning_rate", self.learning_rate, above=0)
        require_number("weight_decay", self.weight_decay, least=0)
        require_whole("max_epochs", self.max_epochs, least=1)
        if self.patience is not None:
            require_whole("patience", self.patience, least=1)
        if self.clip is not None:
            require_number("clip", self.clip, above=0)
        require_number("warmup", self.warmup, least=0, below=1)
        require_name("monitor", self.monitor, MONITORS)
        require_name("optimizer", self.optimizer, OPTIMIZERS)
        require_name("schedule", self.schedule, SCHEDULES)
        require_name("accelerator", self.accelerator, ("auto", "cpu", "cuda", "mps"))
        kept = self.backward_memory
        if kept not in ("all", "sqrt") and (not isinstance(kept, int) or isinstance(kept, bool) or kept < 1):
            raise OptionError('backward_memory must be "all", "sqrt" or a number of bytes', received=repr(kept))

    def require_accelerator(self) -> None:
        """Raise OptionError where the accelerator asked for is not here; a run trained on one is read anywhere."""
        import torch

        there: dict[str, Callable[[], bool]] = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
        if self.accelerator in there and not there[self.accelerator]():
            raise OptionError(
                "there is no such accelerator here, or torch was built without it",
                received=repr(self.accelerator),
                instead='accelerator="auto", or --accelerator auto: the best that is here',
            )

    @classmethod
    def of(cls, source: object, **changes: Any) -> "FitSettings":
        """The settings among the attributes of an estimator, some of them changed."""
        return cls(**{f.name: plain(getattr(source, f.name)) for f in fields(cls)} | changes)


def plain(value: Any) -> Any:
    """A NumPy number, as a grid of parameters holds them, as Python's; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def require_whole(name: str, value: object, *, least: int, most: int = 10**9) -> None:
    """Raise OptionError unless `value` is an integer of at least `least` and at most `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise OptionError(f"{name} must be an integer of at least {least}", received=repr(value))
    if value > most:
        raise OptionError(f"{name} must be at most {most}", received=repr(value) if value < 10**40 else "far more")


def require_seed(value: object) -> None:
    """Raise OptionError unless `value` can seed a generator."""
    require_whole("seed", value, least=0, most=2**63 - 1)


def require_number(
    name: str, value: object, *, least: float | None = None, above: float | None = None, below: float | None = None
) -> None:
    """Raise OptionError unless `value` is a finite number within the bounds."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if good and least is not None:
        good = value >= least  # type: ignore[operator]
    if good and above is not None:
        good = value > above  # type: ignore[operator]
    if good and below is not None:
        good = value < below  # type: ignore[operator]
    if not good:
        bounds = [(least, "at least"), (above, "above"), (below, "below")]
        said = " and ".join(f"{word} {bound:g}" for bound, word in bounds if bound is not None)
        raise OptionError(f"{name} must be a number {said}", received=repr(value))


def require_name(kind: str, value: object, known: object) -> None:
    """Raise UnknownNameError, with a suggestion, unless `value` is among `known`."""
    if value not in known:  # type: ignore[operator]
        raise UnknownNameError(kind, str(value), known)  # type: ignore[arg-type]
