"""Operations on each number."""

import math
from collections.abc import Callable
from typing import Any

import torch

from recurra.steps.graph import Expr
from recurra.steps.vocabulary.table import RULES, Lifter, Refusal, applied, as_number, operands, refuse_inplace, rule


def _unary(name: str) -> Callable[..., Expr]:
    return lambda t, input: t.lift(input, "the operand").pointwise(name)


def _binary(name: str) -> Callable[..., Expr]:
    def apply(t: Lifter, input: Any, other: Any) -> Expr:
        a, b = operands(t, input, other)
        return a.pointwise(name, b)

    return apply


def _comparison(name: str) -> Callable[..., Expr]:
    def apply(t: Lifter, input: Any, other: Any) -> Expr:
        a, b = operands(t, input, other, conditions=2)
        return a.pointwise(name, b)

    return apply


def _swapped(name: str) -> Callable[..., Expr]:
    def apply(t: Lifter, input: Any, other: Any) -> Expr:
        a, b = operands(t, input, other)
        return b.pointwise(name, a)

    return apply


for _op in ("sigmoid", "tanh", "exp", "expm1", "log", "log1p", "sqrt", "erf", "abs", "neg", "detach"):
    RULES[_op] = _unary(_op)
for _op in ("maximum", "minimum"):
    RULES[_op] = _binary(_op)
for _op in ("gt", "ge", "lt", "le", "eq", "ne"):
    RULES[_op] = _comparison(_op)
for _op in ("add", "sub", "mul"):
    RULES[_op] = RULES["r" + _op] = _binary(_op)
RULES["rsub"] = _swapped("sub")
RULES["div"] = RULES["truediv"] = RULES["true_divide"] = RULES["divide"] = _binary("div")
RULES["rdiv"] = RULES["rtruediv"] = _swapped("div")
RULES |= {"subtract": RULES["sub"], "multiply": RULES["mul"], "special_expit": RULES["sigmoid"]}
RULES |= {"greater": RULES["gt"], "less": RULES["lt"], "absolute": RULES["abs"], "negative": RULES["neg"]}


@rule("contiguous", "clone", "alias", "identity")
def same(t: Lifter, input: Any, memory_format: Any = None) -> Expr:
    """No change of value."""
    return t.lift(input, "the operand")


@rule("to", "type", "type_as")
def to(t: Lifter, input: Any, *args: Any, **kwargs: Any) -> Expr:
    """A conversion that converts nothing, or booleans to the numbers of the step."""
    x = t.lift(input, "the operand")
    for value in (*args, *kwargs.values()):
        kind = getattr(value, "dtype", value)
        if kind is t.dtype:
            x = as_number(t, x)
        elif kind not in (input.dtype, input.device, None):
            raise Refusal(f"a conversion to {kind} inside of a step", "one dtype and device in the whole step")
    return x


def _to(dtype: torch.dtype) -> Callable[..., Expr]:
    def apply(t: Lifter, input: Any) -> Expr:
        if dtype is not t.dtype:
            raise Refusal("a conversion of dtype inside of a step", "one dtype in the whole step")
        return as_number(t, t.lift(input, "the operand"))

    return apply


RULES |= {"float": _to(torch.float32), "double": _to(torch.float64)}
RULES |= {"half": _to(torch.float16), "bfloat16": _to(torch.bfloat16)}


@rule("where")
def where(t: Lifter, condition: Any, input: Any, other: Any) -> Expr:
    """``condition ? input : other``."""
    if all(isinstance(v, int | float) for v in (input, other)):
        made = torch.result_type(input, other)  # of numbers alone, torch takes whole ones or its default dtype
        if made is not t.dtype:
            raise Refusal(f"a choice between numbers, which is in {made}", "torch.full_like(x, number) for one of them")
    c, a, b = operands(t, condition, input, other, conditions=1)
    return c.pointwise("where", a, b)


@rule("masked_fill")
def masked_fill(t: Lifter, input: Any, mask: Any, value: Any) -> Expr:
    """``mask ? value : input``."""
    m, a, v = operands(t, mask, input, value, conditions=1)
    return m.pointwise("where", v, a)


def _no_axis(other: Any) -> None:
    if isinstance(other, int | float):
        raise Refusal("the largest or smallest over an axis, with its indices", "amax or amin")


@rule("max")
def maximum(t: Lifter, input: Any, other: Any) -> Expr:
    """The larger of two values."""
    _no_axis(other)
    return applied("maximum", t, input, other)


@rule("min")
def minimum(t: Lifter, input: Any, other: Any) -> Expr:
    """The smaller of two values."""
    _no_axis(other)
    return applied("minimum", t, input, other)


@rule("square")
def square(t: Lifter, input: Any) -> Expr:
    """``x²``."""
    x = t.lift(input, "the operand")
    return x * x


@rule("reciprocal")
def reciprocal(t: Lifter, input: Any) -> Expr:
    """``1 / x``."""
    return 1.0 / t.lift(input, "the operand")


@rule("rsqrt")
def rsqrt(t: Lifter, input: Any) -> Expr:
    """``1 / √x``."""
    return 1.0 / t.lift(input, "the operand").pointwise("sqrt")


@rule("pow")
def power(t: Lifter, input: Any, exponent: Any) -> Expr:
    """Small whole powers and roots; others would need a logarithm of any sign."""
    x = t.lift(input, "the operand")
    known: dict[Any, Callable[[], Expr]] = {
        0.5: lambda: x.pointwise("sqrt"),
        1: lambda: x,
        2: lambda: x * x,
        3: lambda: x * x * x,
        -1: lambda: 1.0 / x,
        -0.5: lambda: 1.0 / x.pointwise("sqrt"),
    }
    if isinstance(exponent, int | float) and exponent in known:
        return known[exponent]()
    raise Refusal("a power other than -1, -0.5, 0.5, 1, 2, 3", "exp(k * log(x)) where x is positive")


@rule("lerp")
def lerp(t: Lifter, input: Any, end: Any, weight: Any) -> Expr:
    """``a + w (b - a)``."""
    a, b, w = operands(t, input, end, weight)
    return a + w * (b - a)


@rule("addcmul")
def addcmul(t: Lifter, input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Expr:
    """``a + value b c``."""
    a, b, c = operands(t, input, tensor1, tensor2)
    return a + (b * c if value == 1 else value * (b * c))


@rule("addcdiv")
def addcdiv(t: Lifter, input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Expr:
    """``a + value b / c``."""
    a, b, c = operands(t, input, tensor1, tensor2)
    return a + (b / c if value == 1 else value * (b / c))


@rule("relu")
def relu(t: Lifter, input: Any, inplace: bool = False) -> Expr:
    """``max(x, 0)``."""
    refuse_inplace(inplace, "inplace")
    return t.lift(input, "the operand").pointwise("relu")


@rule("silu")
def silu(t: Lifter, input: Any, inplace: bool = False) -> Expr:
    """``x σ(x)``."""
    refuse_inplace(inplace, "inplace")
    x = t.lift(input, "the operand")
    return x * x.pointwise("sigmoid")


@rule("softplus")
def softplus(t: Lifter, input: Any, beta: float = 1, threshold: float = 20) -> Expr:
    """``log(1 + exp(β x)) / β``, x itself beyond the threshold, where 0 keeps the unused branch finite."""
    x = t.lift(input, "the operand")
    z = x if beta == 1 else x * beta
    far = z.pointwise("gt", threshold)
    soft = far.pointwise("where", 0.0, z).pointwise("exp").pointwise("log1p")
    return far.pointwise("where", x, soft if beta == 1 else soft / beta)


@rule("logsigmoid", "log_sigmoid")
def logsigmoid(t: Lifter, input: Any) -> Expr:
    """``log σ(x) = min(x, 0) - log(1 + exp(-|x|))``; the sign of |x| cancels in its derivative."""
    x = t.lift(input, "the operand")
    negative = x.pointwise("lt", 0.0)
    lower = negative.pointwise("where", x, 0.0)
    shrunk = negative.pointwise("where", x, -x)
    return lower - shrunk.pointwise("exp").pointwise("log1p")


@rule("gelu")
def gelu(t: Lifter, input: Any, *, approximate: str = "none") -> Expr:
    """``x Φ(x)``, Φ exact or by tanh (Hendrycks & Gimpel, 2016)."""
    x = t.lift(input, "the operand")
    if approximate == "none":
        return x * 0.5 * (1.0 + (x * math.sqrt(0.5)).pointwise("erf"))
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
    return 0.5 * x * (1.0 + inner.pointwise("tanh"))


@rule("leaky_relu")
def leaky_relu(t: Lifter, input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Expr:
    """``x > 0 ? x : slope x``."""
    refuse_inplace(inplace, "inplace")
    x = t.lift(input, "the operand")
    return x.pointwise("gt", 0.0).pointwise("where", x, x * negative_slope)


@rule("elu")
def elu(t: Lifter, input: Any, alpha: float = 1.0, inplace: bool = False) -> Expr:
    """``x > 0 ? x : α (exp(x) - 1)``, where 0 keeps the unused branch finite."""
    refuse_inplace(inplace, "inplace")
    x = t.lift(input, "the operand")
    positive = x.pointwise("gt", 0.0)
    return positive.pointwise("where", x, alpha * positive.pointwise("where", 0.0, x).pointwise("expm1"))


@rule("clamp", "clip")
def clamp(t: Lifter, input: Any, min: Any = None, max: Any = None) -> Expr:
    """Bounded below and above; at a bound the gradient passes, as torch has it."""
    x = t.lift(input, "the operand")
    if min is not None:
        _, low = operands(t, input, min)
        x = x.pointwise("lt", low).pointwise("where", low, x)
    if max is not None:
        _, high = operands(t, input, max)
        x = x.pointwise("gt", high).pointwise("where", high, x)
    return x


@rule("clamp_min")
def clamp_min(t: Lifter, input: Any, min: Any) -> Expr:
    """Bounded below."""
    return clamp(t, input, min)


@rule("clamp_max")
def clamp_max(t: Lifter, input: Any, max: Any) -> Expr:
    """Bounded above."""
    return clamp(t, input, None, max)


@rule("hardtanh")
def hardtanh(t: Lifter, input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Expr:
    """Bounded; at a bound the gradient stops, as torch has it here."""
    refuse_inplace(inplace, "inplace")
    x = t.lift(input, "the operand")
    low = x.pointwise("le", min_val).pointwise("where", min_val, x)
    return low.pointwise("ge", max_val).pointwise("where", max_val, low)


@rule("relu6")
def relu6(t: Lifter, input: Any, inplace: bool = False) -> Expr:
    """``min(max(x, 0), 6)``."""
    return hardtanh(t, input, 0.0, 6.0, inplace)


@rule("softsign")
def softsign(t: Lifter, input: Any) -> Expr:
    """``x / (1 + |x|)``."""
    x = t.lift(input, "the operand")
    return x / (1.0 + x.pointwise("abs"))


@rule("dropout", "feature_dropout", "alpha_dropout")
def dropout(t: Lifter, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Expr:
    """Nothing in evaluation; a mask drawn inside of a step would differ from run to run."""
    if training and p > 0:
        raise Refusal("a random draw inside of a step", "a mask passed as an input or as a constant of the sequence")
    return t.lift(input, "the operand")
