"""The closed vocabulary: every primitive of a step, what kind it is, and how torch computes it.

A value is ``(N, *shape)`` where it belongs to frames or sequences, and ``shape`` alone where it belongs to the weights:
the leading axis broadcasts. N is the number of rows, whatever they are (sequences of a frame, or all frames at once).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor


class Kind(Enum):
    """What an operation does to the units of a row."""

    LEAF = "leaf"
    CONTRACTION = "contraction"  # a product with a weight: a GEMM over the rows
    POINTWISE = "pointwise"
    REDUCTION = "reduction"  # over units: all of a row must be there
    BYPRODUCT = "by-product"  # of the reduction that reads it
    LAYOUT = "layout"  # moves numbers, computes none
    WEIGHT = "weight"  # any torch function, on weights alone


@dataclass(frozen=True)
class Op:
    """One row of the table."""

    kind: Kind
    torch: Callable[..., Any] | None = None  # (*values, attrs) -> value
    cheap: bool = False  # cheaper to compute again than to keep


def _linear(a: Tensor, weight: Tensor, addend: Tensor | None = None, *, attrs: Any) -> Tensor:
    if addend is None:
        return torch.nn.functional.linear(a, weight)
    if a.dim() == 2:
        return torch.addmm(addend, a, weight.t())
    return torch.nn.functional.linear(a, weight) + addend


def _block_linear(a: Tensor, weight: Tensor, *, attrs: Any) -> Tensor:
    return torch.einsum("ngk,gjk->ngj", a, weight)


def _cat(*values: Tensor, attrs: Any) -> Tensor:
    dim, rank = attrs
    lead = next((v.shape[:1] for v in values if v.dim() > rank), ())
    return torch.cat([v.expand(*lead, *v.shape[v.dim() - rank :]) for v in values], dim - rank)


def _slice(a: Tensor, *, attrs: Any) -> Tensor:
    dim, start, stop = attrs
    return a.narrow(dim, start, stop - start)


def _reshape(a: Tensor, *, attrs: Any) -> Tensor:
    rank, sizes = attrs
    return a.reshape(*a.shape[: a.dim() - rank], *sizes)


def _expand(a: Tensor, *, attrs: Any) -> Tensor:
    rank, sizes = attrs
    return a.expand(*a.shape[: a.dim() - rank], *sizes) if a.dim() >= rank else a.expand(sizes)


def _inverse_deviation(a: Tensor, *, attrs: Any) -> Tensor:
    count, eps = attrs
    variance = torch.var(a, tuple(range(-count, 0)), correction=0, keepdim=True)
    return torch.rsqrt(variance + eps)


def _standardize(a: Tensor, scale: Tensor, *, attrs: Any) -> Tensor:
    count, eps = attrs  # torch's kernel finds the scale again, and is faster than two operations that are given it
    return torch.nn.functional.layer_norm(a, a.shape[a.dim() - count :], eps=eps)


def _standardize_grad(g: Tensor, y: Tensor, scale: Tensor, *, attrs: Any) -> Tensor:
    # Torch's own kernel for g - mean(g) - y mean(g y): the derivative where the input has mean 0 and deviation 1.
    shape = y.shape[y.dim() - attrs :]
    lead = (*y.shape[: y.dim() - attrs], *[1] * attrs)
    mean, rstd = y.new_zeros(lead), y.new_ones(lead)
    g = g.expand_as(y).contiguous()
    dx: Tensor = torch.ops.aten.native_layer_norm_backward(g, y, shape, mean, rstd, None, None, [True, False, False])[0]
    return dx * scale


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values, attrs: function(*values)


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Any]:
    return lambda a, *, attrs: function(a, dim=attrs, keepdim=True)


def _pointwise(function: Callable[..., Any], *, cheap: bool = False) -> Op:
    return Op(Kind.POINTWISE, _plain(function), cheap)


# Reductions and slices count their axes from the end, so that the leading axis never matters.
OPS: dict[str, Op] = {
    "leaf": Op(Kind.LEAF),
    "const": Op(Kind.LEAF),
    "full": Op(Kind.WEIGHT),
    "call": Op(Kind.WEIGHT),
    "item": Op(Kind.WEIGHT),
    "linear": Op(Kind.CONTRACTION, _linear),
    "block_linear": Op(Kind.CONTRACTION, _block_linear),
    "add": _pointwise(torch.add, cheap=True),
    "sub": _pointwise(torch.sub, cheap=True),
    "mul": _pointwise(torch.mul, cheap=True),
    "div": _pointwise(torch.div),
    "neg": _pointwise(torch.neg, cheap=True),
    "sigmoid": _pointwise(torch.sigmoid),
    "tanh": _pointwise(torch.tanh),
    "relu": _pointwise(torch.relu, cheap=True),
    "exp": _pointwise(torch.exp),
    "expm1": _pointwise(torch.expm1),
    "log": _pointwise(torch.log),
    "log1p": _pointwise(torch.log1p),
    "sqrt": _pointwise(torch.sqrt),
    "erf": _pointwise(torch.erf),
    "abs": _pointwise(torch.abs, cheap=True),
    "sign": _pointwise(torch.sign, cheap=True),
    "maximum": _pointwise(torch.maximum, cheap=True),
    "minimum": _pointwise(torch.minimum, cheap=True),
    "gt": _pointwise(torch.gt, cheap=True),
    "ge": _pointwise(torch.ge, cheap=True),
    "lt": _pointwise(torch.lt, cheap=True),
    "le": _pointwise(torch.le, cheap=True),
    "eq": _pointwise(torch.eq, cheap=True),
    "ne": _pointwise(torch.ne, cheap=True),
    "where": _pointwise(torch.where, cheap=True),
    "detach": _pointwise(torch.Tensor.detach, cheap=True),
    "sum": Op(Kind.REDUCTION, _reduce(torch.sum)),
    "mean": Op(Kind.REDUCTION, _reduce(torch.mean)),
    "amax": Op(Kind.REDUCTION, _reduce(torch.amax)),
    # Layer normalisation without its gain: one pass where the sum of its parts takes seven.
    "inverse_deviation": Op(Kind.BYPRODUCT, _inverse_deviation),
    "standardize": Op(Kind.REDUCTION, _standardize),
    "standardize_grad": Op(Kind.REDUCTION, _standardize_grad),
    "slice": Op(Kind.LAYOUT, _slice, cheap=True),
    "cat": Op(Kind.LAYOUT, _cat, cheap=True),
    "reshape": Op(Kind.LAYOUT, _reshape, cheap=True),
    "expand": Op(Kind.LAYOUT, _expand, cheap=True),
}
