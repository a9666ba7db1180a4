"""How scans are run, never what they compute: a context manager."""

import contextvars
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from recurra.errors import OptionError

WEIGHTS = {"float": 0, "bfloat16": 1, "int8": 2}  # how the native machine holds matrices, as in kernels/cpu/machine.h


@dataclass(frozen=True)
class Options:
    """The knobs of the engine; :func:`options` sets them for a block of code."""

    executor: str = "auto"  # or a name from executors()
    save: str | int = "all"  # what a scan keeps for its backward pass: "all", "sqrt", or a budget in bytes
    check_nan: bool = True  # look for NaN in inputs on the CPU
    weights: str = "float"  # how the native machine holds matrices: see WEIGHTS


_CURRENT: contextvars.ContextVar[Options] = contextvars.ContextVar("recurra_options", default=Options())  # noqa: B039 - frozen


def current_options() -> Options:
    """The options in force here."""
    return _CURRENT.get()


@contextmanager
def options(
    *,
    executor: str | None = None,
    save: str | int | None = None,
    check_nan: bool | None = None,
    weights: str | None = None,
) -> Iterator[Options]:
    """Choose how scans run inside of a ``with`` block; but for `weights`, what they compute never changes.

    Args:
        executor: ``"auto"``, or a name from :func:`recurra.executors`.
        save: what a scan keeps for its backward pass. ``"all"`` keeps each value the derivatives need; ``"sqrt"`` keeps
            the states at no more than √T frames and computes the rest again, which costs up to one more forward pass
            and keeps memory O(√T); a number is a budget in bytes, met by as few pieces of time as it takes. A budget
            below what one frame at a time needs is met as nearly as can be. Only ``native`` and ``staged`` can keep
            less than all.
        check_nan: whether NaN in the valid frames of an input is an error (on the CPU alone).
        weights: how the native machine holds the matrices of a cell in float32: ``"float"`` as they are, ``"bfloat16"``
            rounded to 8 bits of mantissa, ``"int8"`` as whole steps of a factor for each row, for inference alone.
            Sums, states and all else stay float32. Under ``torch.autocast("cpu")`` and in layers of dtype bfloat16 it
            is bfloat16 without being asked.

    Raises:
        OptionError: a value is none of these.

    Example:
        >>> import torch, recurra
        >>> cell, x = recurra.LSTMCell(3, 4), torch.randn(5, 2, 3)
        >>> with recurra.options(executor="reference"):
        ...     y, state = recurra.scan(cell, x)
    """
    counted = not isinstance(save, bool | str | None) and 1 <= save < math.inf and save % 1 == 0  # 1e9 is bytes too
    if save is not None and save not in ("all", "sqrt") and not counted:
        raise OptionError('save must be "all", "sqrt" or a number of bytes', received=repr(save))
    if weights is not None and weights not in WEIGHTS:
        raise OptionError(f"weights must be one of {', '.join(WEIGHTS)}", received=repr(weights))
    given = {"executor": executor, "save": save, "check_nan": check_nan, "weights": weights}
    token = _CURRENT.set(replace(_CURRENT.get(), **{k: v for k, v in given.items() if v is not None}))  # type: ignore[arg-type]
    try:
        yield _CURRENT.get()
    finally:
        _CURRENT.reset(token)
