"""Products with weights, and reductions over units."""

import math
from collections.abc import Callable
from typing import Any

from recurra.shapes import show
from recurra.steps.graph import Expr
from recurra.steps.vocabulary.table import RULES, Lifter, Refusal, applied, axes_of, is_symbol, keep, rule


@rule("linear")
def linear(t: Lifter, input: Any, weight: Any, bias: Any = None) -> Expr:
    """``x Wᵀ + b``."""
    a, W = t.lift(input, "the input"), t.lift(weight, "the weight")
    if not is_symbol(input) or is_symbol(weight) or len(W.shape) != 2:
        raise Refusal("a product of two values of the step", "a product of a value with a weight (out, in)")
    if not a.shape or a.shape[-1].size != W.shape[1].size:
        raise Refusal(f"a product of {show(a.shape)} with a weight {show(W.shape)}: the widths differ")
    product = a.linear(W)
    return product if bias is None else applied("add", t, product, bias)


@rule("matmul", "mm")
def matmul(t: Lifter, input: Any, other: Any) -> Expr:
    """``x W`` with a weight ``(in, out)``."""
    W = t.lift(other, "the weight")
    if not is_symbol(input) or is_symbol(other) or len(W.shape) != 2:
        raise Refusal("a product of two values of the step", "a product of a value with a weight (in, out)")
    a = t.lift(input, "the input")
    if not a.shape or a.shape[-1].size != W.shape[0].size:
        raise Refusal(f"a product of {show(a.shape)} with a weight {show(W.shape)}: the widths differ")
    return a.linear(W.transposed())


@rule("addmm")
def addmm(t: Lifter, input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Expr:
    """``b + x W``."""
    if (beta, alpha) != (1, 1):
        raise Refusal("addmm with beta or alpha", "the factors written out")
    return applied("add", t, matmul(t, mat1, mat2), input)


@rule("einsum")
def einsum(t: Lifter, equation: str, *operands: Any) -> Expr:
    """One value and one weight: a product over the last axis (``bi,oi->bo``), or one a head (``bgk,gjk->bgj``)."""
    flat = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    letters = equation.replace(" ", "")
    canonical, seen = "", dict[str, str]()
    for ch in letters:
        canonical += seen.setdefault(ch, chr(ord("a") + len(seen))) if ch.isalpha() else ch
    if len(flat) != 2 or not is_symbol(flat[0]) or is_symbol(flat[1]):
        raise Refusal("einsum of other than a value and a weight")
    a, W = t.lift(flat[0], "the input"), t.lift(flat[1], "the weight")
    forms: dict[str, Callable[[], Expr]] = {
        "ab,cb->ac": lambda: a.linear(W),
        "ab,bc->ac": lambda: a.linear(W.transposed()),
        "abc,dc->abd": lambda: a.linear(W),
        "abc,cd->abd": lambda: a.linear(W.transposed()),
        "abc,bdc->abd": lambda: a.block_linear(W),
        "abc,bcd->abd": lambda: a.block_linear(W.transposed()),
    }
    if canonical not in forms:
        raise Refusal(
            f"the einsum {equation!r}", 'a product of a value with a weight, such as "bi,oi->bo" or "bgk,gjk->bgj"'
        )
    return forms[canonical]()


def _unconverted(t: Lifter, input: Any, dtype: Any) -> Expr:
    if dtype not in (None, t.dtype):
        raise Refusal(f"a conversion to {dtype} inside of a step")
    return t.lift(input, "the operand")


def _reduction(name: str) -> Callable[..., Expr]:
    def apply(t: Lifter, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Expr:
        x = _unconverted(t, input, dtype)
        axes = axes_of(t, x, dim)
        return keep(x.reduce(name, axes), axes, keepdim)

    return apply


RULES |= {"sum": _reduction("sum"), "mean": _reduction("mean"), "amax": _reduction("amax")}


@rule("amin")
def amin(t: Lifter, input: Any, dim: Any = None, keepdim: bool = False) -> Expr:
    """The least over units."""
    x = -t.lift(input, "the operand")
    axes = axes_of(t, x, dim)
    return -keep(x.reduce("amax", axes), axes, keepdim)


@rule("var")
def var(
    t: Lifter, input: Any, dim: Any = None, *, correction: Any = 1, keepdim: bool = False, unbiased: Any = None
) -> Expr:
    """The variance over units."""
    x = t.lift(input, "the operand")
    axes = axes_of(t, x, dim)
    count = math.prod(x.shape[a].size for a in axes)
    centred = x - x.reduce("mean", axes)
    free = int(unbiased) if unbiased is not None else correction
    return keep((centred * centred).reduce("sum", axes) / float(count - free), axes, keepdim)


@rule("softmax")
def softmax(t: Lifter, input: Any, dim: Any, _stacklevel: int = 3, dtype: Any = None) -> Expr:
    """``exp(x - max) / Σ exp(x - max)``; the maximum only shifts, so no gradient runs through it."""
    x = _unconverted(t, input, dtype)
    axes = axes_of(t, x, dim)
    e = (x - x.reduce("amax", axes).pointwise("detach")).pointwise("exp")
    return e / e.reduce("sum", axes)


@rule("log_softmax")
def log_softmax(t: Lifter, input: Any, dim: Any, _stacklevel: int = 3, dtype: Any = None) -> Expr:
    """``x - max - log Σ exp(x - max)``."""
    x = _unconverted(t, input, dtype)
    axes = axes_of(t, x, dim)
    shifted = x - x.reduce("amax", axes).pointwise("detach")
    return shifted - shifted.pointwise("exp").reduce("sum", axes).pointwise("log")


@rule("layer_norm")
def layer_norm(
    t: Lifter, input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Expr:
    """``(x - mean) / √(var + ε) · gain + bias``."""
    x = t.lift(input, "the operand")
    axes = tuple(range(-len(normalized_shape), 0))
    if tuple(x.shape[a].size for a in axes) != tuple(normalized_shape):
        raise Refusal(f"layer_norm over {tuple(normalized_shape)} of {show(x.shape)}")
    return _scaled(t, x.standardize(len(axes), eps), weight, bias)


@rule("rms_norm")
def rms_norm(t: Lifter, input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Expr:
    """``x / √(mean x² + ε) · gain`` (Zhang & Sennrich, 2019)."""
    x = t.lift(input, "the operand")
    axes = tuple(range(-len(normalized_shape), 0))
    if eps is None:
        raise Refusal("rms_norm without eps, whose value then depends on the dtype", "eps=1e-6, or what fits")
    return _scaled(t, x / ((x * x).reduce("mean", axes) + eps).pointwise("sqrt"), weight, None)


def _scaled(t: Lifter, y: Expr, weight: Any, bias: Any) -> Expr:
    if weight is not None:
        y = applied("mul", t, y, weight)
    return y if bias is None else applied("add", t, y, bias)
