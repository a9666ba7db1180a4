"""Tolerances in units of rounding."""

import math

import torch
from torch import Tensor


def relative_error(got: Tensor, ref: Tensor) -> float:
    """The error of a whole tensor, relative by norm, in units of `got`'s own rounding step.

    A zero reference demands exact zero. NaN and shapes that differ are infinitely wrong.

    Args:
        got: the result, in its own dtype.
        ref: the same in float64.

    Example:
        >>> relative_error(torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64))
        0.0
        >>> relative_error(torch.tensor([1e-30]), torch.tensor([0.0], dtype=torch.float64))
        inf
    """
    if got.shape != ref.shape:
        return math.inf
    if got.numel() == 0:
        return 0.0
    error: float = (got.detach().double() - ref.detach().double()).norm().item()
    scale: float = ref.detach().double().norm().item()
    if math.isnan(error):
        return math.inf
    if scale == 0:
        return 0.0 if error == 0 else math.inf
    return error / scale / torch.finfo(got.dtype).eps


def allowance(own: float, units: float = 8) -> float:
    """How many rounding steps off a result may be where the plain loop itself is `own` off."""
    return max(units, 3 * own if math.isfinite(own) else 0.0)


def assert_within_eps(got: Tensor, ref: Tensor, units: float = 8, *, own: float = 0.0, what: str = "") -> None:
    """Fail where `got` is further than `units` rounding steps from `ref`, or 3 times as far as the plain loop.

    Args:
        got: the result, in its own dtype.
        ref: the plain loop's in float64, from the same numbers.
        units: how many rounding steps of `got`'s dtype are allowed in any case.
        own: the :func:`relative_error` of the plain loop in the dtype of `got`: how hard the numbers are.
        what: the name of the quantity, for the message.

    Raises:
        AssertionError: it is further away.

    Example:
        >>> assert_within_eps(torch.ones(3), torch.ones(3, dtype=torch.float64))
    """
    error = relative_error(got, ref)
    allowed = allowance(own, units)
    assert error <= allowed, (
        f"{what or 'result'} {tuple(got.shape)} is off by {error:.3g} eps of {got.dtype}; "
        f"allowed {allowed:.3g} (the plain loop in that dtype: {own:.3g}), reference shape {tuple(ref.shape)}"
    )
