"""What a step may say: torch's names, written as primitives.

Each rule has the parameters of the torch function it stands for, after the tracer; it returns an expression, or a list
where torch returns a tuple. Kinks and ties follow torch's own derivatives. Adding an operation is adding a row.
"""

import builtins
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from recurra.shapes import ONE, Dim, Shape, broadcast, extent, show
from recurra.steps.graph import Builder, Expr, cat


class Refusal(Exception):
    """Why a value or an operation cannot be derived; completed with the source line at the surface."""

    def __init__(self, what: str, instead: str = ""):
        super().__init__(what)
        self.what, self.instead = what, instead


class Lifter(Protocol):
    """What rules need of the tracer."""

    builder: Builder
    batch_size: int

    def lift(self, value: Any, where: str) -> Expr:
        """A symbol, a weight or a number as a node."""


# Questions about a symbol that its shape answers.
PASSED_THROUGH = frozenset(
    "shape size dim ndim ndimension dtype device layout is_floating_point is_complex requires_grad numel nelement "
    "__len__ is_cuda is_cpu is_sparse is_quantized is_nested get_device element_size itemsize __repr__ names".split()
)
RULES: dict[str, Callable[..., Any]] = {}


def rule(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a rule under torch's names for it."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


# --- pointwise --------------------------------------------------------------------------------------------------------


def _operands(t: Lifter, *values: Any) -> list[Expr]:
    """Operands that broadcast row by row: a weight may not reach into the batch axis."""
    exprs = [t.lift(v, f"operand {k}") for k, v in enumerate(values)]
    symbols = [len(e.shape) for e, v in zip(exprs, values, strict=True) if _is_symbol(v)]
    rank = max(symbols)
    if min(symbols) != rank:
        raise Refusal(
            "values of different rank would broadcast over the batch axis", "unsqueeze(-1) on the one of lower rank"
        )
    fitted = []
    for e in exprs:
        extra = len(e.shape) - rank
        if extra > 0:  # a weight (1, H) beside a value (B, H)
            if any(d.size != 1 for d in e.shape[:extra]):
                raise Refusal("a weight would broadcast over the batch axis", f"a weight of rank {rank} or less")
            e = e.call(_reshape_weight, extent(e.shape[extra:]), shape=e.shape[extra:])
        fitted.append(e)
    if broadcast(*(e.shape for e in fitted)) is None:
        raise Refusal(f"shapes {', '.join(show(e.shape) for e in fitted)} do not broadcast")
    return fitted


def _is_symbol(value: Any) -> bool:
    return isinstance(value, Expr) or hasattr(value, "expr")


def _reshape_weight(weight: Any, sizes: tuple[int, ...]) -> Any:
    return weight.reshape(sizes)


def _unary(name: str) -> Callable[..., Expr]:
    return lambda t, input: t.lift(input, "the operand").pointwise(name)


def _binary(name: str) -> Callable[..., Expr]:
    def apply(t: Lifter, input: Any, other: Any) -> Expr:
        a, b = _operands(t, input, other)
        return a.pointwise(name, b)

    return apply


def _swapped(name: str) -> Callable[..., Expr]:
    def apply(t: Lifter, input: Any, other: Any) -> Expr:
        a, b = _operands(t, input, other)
        return b.pointwise(name, a)

    return apply


for _op in ("sigmoid", "tanh", "relu", "exp", "expm1", "log", "log1p", "sqrt", "erf", "abs", "neg", "detach"):
    RULES[_op] = _unary(_op)
for _op in ("maximum", "minimum", "gt", "ge", "lt", "le", "eq", "ne"):
    RULES[_op] = _binary(_op)
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
    """A conversion that converts nothing."""
    for value in (*args, *kwargs.values()):
        kind = getattr(value, "dtype", value)
        if kind not in (input.dtype, input.device, None):
            raise Refusal(f"a conversion to {kind} inside of a step", "one dtype and device in the whole step")
    return t.lift(input, "the operand")


@rule("float", "double", "half", "bfloat16")
def converted(t: Lifter, input: Any) -> Expr:
    """A conversion to a dtype that a step may not depend on."""
    raise Refusal("a conversion of dtype inside of a step", "one dtype in the whole step")


@rule("where")
def where(t: Lifter, condition: Any, input: Any, other: Any) -> Expr:
    """``condition ? input : other``."""
    c, a, b = _operands(t, condition, input, other)
    return c.pointwise("where", a, b)


@rule("masked_fill")
def masked_fill(t: Lifter, input: Any, mask: Any, value: Any) -> Expr:
    """``mask ? value : input``."""
    m, a, v = _operands(t, mask, input, value)
    return m.pointwise("where", v, a)


@rule("max")
def maximum(t: Lifter, input: Any, other: Any) -> Expr:
    """The larger of two values."""
    return RULES["maximum"](t, input, other)  # type: ignore[no-any-return]


@rule("min")
def minimum(t: Lifter, input: Any, other: Any) -> Expr:
    """The smaller of two values."""
    return RULES["minimum"](t, input, other)  # type: ignore[no-any-return]


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
    a, b, w = _operands(t, input, end, weight)
    return a + w * (b - a)


@rule("addcmul")
def addcmul(t: Lifter, input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Expr:
    """``a + value b c``."""
    a, b, c = _operands(t, input, tensor1, tensor2)
    return a + (b * c if value == 1 else value * (b * c))


@rule("addcdiv")
def addcdiv(t: Lifter, input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Expr:
    """``a + value b / c``."""
    a, b, c = _operands(t, input, tensor1, tensor2)
    return a + (b / c if value == 1 else value * (b / c))


@rule("silu")
def silu(t: Lifter, input: Any, inplace: bool = False) -> Expr:
    """``x σ(x)``."""
    _no(inplace, "inplace")
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
    _no(inplace, "inplace")
    x = t.lift(input, "the operand")
    return x.pointwise("gt", 0.0).pointwise("where", x, x * negative_slope)


@rule("elu")
def elu(t: Lifter, input: Any, alpha: float = 1.0, inplace: bool = False) -> Expr:
    """``x > 0 ? x : α (exp(x) - 1)``, where 0 keeps the unused branch finite."""
    _no(inplace, "inplace")
    x = t.lift(input, "the operand")
    positive = x.pointwise("gt", 0.0)
    return positive.pointwise("where", x, alpha * positive.pointwise("where", 0.0, x).pointwise("expm1"))


@rule("clamp", "clip")
def clamp(t: Lifter, input: Any, min: Any = None, max: Any = None) -> Expr:
    """Bounded below and above; at a bound the gradient passes, as torch has it."""
    x = t.lift(input, "the operand")
    if min is not None:
        _, low = _operands(t, input, min)
        x = x.pointwise("lt", low).pointwise("where", low, x)
    if max is not None:
        _, high = _operands(t, input, max)
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
    _no(inplace, "inplace")
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


def _no(flag: bool, name: str) -> None:
    if flag:
        raise Refusal(f"{name}=True changes a value in place", f"{name}=False")


# --- contractions -----------------------------------------------------------------------------------------------------


@rule("linear")
def linear(t: Lifter, input: Any, weight: Any, bias: Any = None) -> Expr:
    """``x Wᵀ + b``."""
    a, W = t.lift(input, "the input"), t.lift(weight, "the weight")
    if not _is_symbol(input) or _is_symbol(weight) or len(W.shape) != 2:
        raise Refusal("a product of two values of the step", "a product of a value with a weight (out, in)")
    if not a.shape or a.shape[-1].size != W.shape[1].size:
        raise Refusal(f"a product of {show(a.shape)} with a weight {show(W.shape)}: the widths differ")
    product = a.linear(W)
    return product if bias is None else RULES["add"](t, product, bias)  # type: ignore[no-any-return]


@rule("matmul", "mm")
def matmul(t: Lifter, input: Any, other: Any) -> Expr:
    """``x W`` with a weight ``(in, out)``."""
    W = t.lift(other, "the weight")
    if not _is_symbol(input) or _is_symbol(other) or len(W.shape) != 2:
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
    return RULES["add"](t, matmul(t, mat1, mat2), input)  # type: ignore[no-any-return]


@rule("einsum")
def einsum(t: Lifter, equation: str, *operands: Any) -> Expr:
    """One value and one weight: a product over the last axis (``bi,oi->bo``), or one a head (``bgk,gjk->bgj``)."""
    flat = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    letters = equation.replace(" ", "")
    canonical, seen = "", dict[str, str]()
    for ch in letters:
        canonical += seen.setdefault(ch, chr(ord("a") + len(seen))) if ch.isalpha() else ch
    if len(flat) != 2 or not _is_symbol(flat[0]) or _is_symbol(flat[1]):
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


# --- reductions -------------------------------------------------------------------------------------------------------


def _axes(t: Lifter, x: Expr, dim: Any) -> tuple[int, ...]:
    """Axes of a row, counted from the end; the batch axis is out of reach."""
    rank = len(x.shape) + 1
    if dim is None:
        raise Refusal("a reduction over everything, the batch included", "dim=-1")
    listed = [dim] if isinstance(dim, int) else list(dim)
    axes = tuple(sorted({d if d < 0 else d - rank for d in listed}))
    if not axes or axes[0] <= -rank or axes[-1] >= 0:
        raise Refusal("an operation over the batch axis", "dim=-1")
    return axes


def _keep(x: Expr, axes: Sequence[int], keepdim: bool) -> Expr:
    rank = len(x.shape)
    return x if keepdim else x.reshape(tuple(d for k, d in enumerate(x.shape) if k - rank not in axes))


def _reduction(name: str) -> Callable[..., Expr]:
    def apply(t: Lifter, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Expr:
        x = t.lift(input, "the operand")
        if dtype not in (None, input.dtype):
            raise Refusal(f"a conversion to {dtype} inside of a step")
        axes = _axes(t, x, dim)
        return _keep(x.reduce(name, axes), axes, keepdim)

    return apply


RULES |= {"sum": _reduction("sum"), "mean": _reduction("mean"), "amax": _reduction("amax")}


@rule("amin")
def amin(t: Lifter, input: Any, dim: Any = None, keepdim: bool = False) -> Expr:
    """The least over units."""
    x = -t.lift(input, "the operand")
    axes = _axes(t, x, dim)
    return -_keep(x.reduce("amax", axes), axes, keepdim)


@rule("var")
def var(
    t: Lifter, input: Any, dim: Any = None, *, correction: Any = 1, keepdim: bool = False, unbiased: Any = None
) -> Expr:
    """The variance over units."""
    x = t.lift(input, "the operand")
    axes = _axes(t, x, dim)
    count = math.prod(x.shape[a].size for a in axes)
    centred = x - x.reduce("mean", axes)
    free = int(unbiased) if unbiased is not None else correction
    return _keep((centred * centred).reduce("sum", axes) / float(count - free), axes, keepdim)


@rule("softmax")
def softmax(t: Lifter, input: Any, dim: Any, _stacklevel: int = 3, dtype: Any = None) -> Expr:
    """``exp(x - max) / Σ exp(x - max)``; the maximum only shifts, so no gradient runs through it."""
    x = t.lift(input, "the operand")
    axes = _axes(t, x, dim)
    e = (x - x.reduce("amax", axes).pointwise("detach")).pointwise("exp")
    return e / e.reduce("sum", axes)


@rule("log_softmax")
def log_softmax(t: Lifter, input: Any, dim: Any, _stacklevel: int = 3, dtype: Any = None) -> Expr:
    """``x - max - log Σ exp(x - max)``."""
    x = t.lift(input, "the operand")
    axes = _axes(t, x, dim)
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
        y = RULES["mul"](t, y, weight)
    return y if bias is None else RULES["add"](t, y, bias)  # type: ignore[no-any-return]


# --- layout -----------------------------------------------------------------------------------------------------------


def _axis(t: Lifter, x: Expr, dim: int) -> int:
    return _axes(t, x, dim)[0]


@rule("chunk")
def chunk(t: Lifter, input: Any, chunks: int, dim: int = 0) -> list[Expr]:
    """Equal parts along an axis, the last one smaller where it does not divide."""
    x = t.lift(input, "the operand")
    axis = _axis(t, x, dim)
    return _pieces(x, axis, -(-x.shape[axis].size // chunks))


@rule("split", "split_with_sizes")
def split(t: Lifter, tensor: Any, split_size_or_sections: Any, dim: int = 0) -> list[Expr]:
    """Parts of given sizes along an axis."""
    x = t.lift(tensor, "the operand")
    axis = _axis(t, x, dim)
    if isinstance(split_size_or_sections, int):
        return _pieces(x, axis, split_size_or_sections)
    bounds = [0]
    for size in split_size_or_sections:
        bounds.append(bounds[-1] + size)
    if bounds[-1] != x.shape[axis].size:
        raise Refusal(f"split into {list(split_size_or_sections)} of width {x.shape[axis].size}")
    return [x.slice(axis, a, b) for a, b in zip(bounds, bounds[1:], strict=False)]


def _pieces(x: Expr, axis: int, size: int) -> list[Expr]:
    width = x.shape[axis].size
    return [x.slice(axis, a, builtins.min(a + size, width)) for a in range(0, width, size)]


@rule("narrow")
def narrow(t: Lifter, input: Any, dim: int, start: int, length: int) -> Expr:
    """A range of an axis."""
    x = t.lift(input, "the operand")
    return x.slice(_axis(t, x, dim), start, start + length)


@rule("select")
def select(t: Lifter, input: Any, dim: int, index: int) -> Expr:
    """One place of an axis, the axis gone."""
    x = t.lift(input, "the operand")
    axis = _axis(t, x, dim)
    index %= x.shape[axis].size
    return _keep(x.slice(axis, index, index + 1), (axis,), keepdim=False)


@rule("unbind")
def unbind(t: Lifter, input: Any, dim: int = 0) -> list[Expr]:
    """Every place of an axis, the axis gone."""
    x = t.lift(input, "the operand")
    axis = _axis(t, x, dim)
    return [select(t, input, axis, k) for k in range(x.shape[axis].size)]


@rule("getitem")
def getitem(t: Lifter, input: Any, index: Any) -> Expr:
    """Slices and whole numbers on axes of a row: ``gates[:, :H]``, ``gates[..., 0]``."""
    x = t.lift(input, "the operand")
    items = list(index) if isinstance(index, tuple) else [index]
    rank = len(x.shape) + 1
    if any(not isinstance(i, slice | int | type(Ellipsis)) for i in items) or items.count(...) > 1:
        raise Refusal("an index that is neither a slice nor a whole number")
    if ... in items:
        at = items.index(...)
        items[at : at + 1] = [slice(None)] * (rank - len(items) + 1)
    items += [slice(None)] * (rank - len(items))
    if items[0] != slice(None):
        raise Refusal("an index into the batch axis", "gates[..., i] or gates[:, i]")
    gone = []
    for axis, item in zip(range(1 - rank, 0), items[1:], strict=True):
        width = x.shape[axis].size
        if isinstance(item, int):
            x = x.slice(axis, item % width, item % width + 1)
            gone.append(axis)
            continue
        start, stop, step = item.indices(width)
        if step != 1:
            raise Refusal("an index with a stride", "slices with step 1")
        x = x.slice(axis, start, builtins.max(start, stop))
    return _keep(x, gone, keepdim=False)


@rule("cat", "concat", "concatenate")
def concatenate(t: Lifter, tensors: Sequence[Any], dim: int = 0) -> Expr:
    """Values side by side."""
    parts = [t.lift(v, f"part {k}") for k, v in enumerate(tensors)]
    symbols = [p for p, v in zip(parts, tensors, strict=True) if _is_symbol(v)]
    axis = _axis(t, symbols[0], dim)
    if any(len(p.shape) != len(symbols[0].shape) for p in parts):
        raise Refusal("cat of values of different rank", "a weight of the shape of one row")
    others = {tuple(d.size for k, d in enumerate(p.shape) if k - len(p.shape) != axis) for p in parts}
    if len(others) != 1:
        raise Refusal(f"cat of {', '.join(show(p.shape) for p in parts)}")
    return cat(parts, axis)


@rule("stack")
def stack(t: Lifter, tensors: Sequence[Any], dim: int = 0) -> Expr:
    """Values along a new axis."""
    return concatenate(t, [unsqueeze(t, v, dim) for v in tensors], dim)


@rule("unsqueeze")
def unsqueeze(t: Lifter, input: Any, dim: int) -> Expr:
    """A new axis of width 1."""
    x = t.lift(input, "the operand")
    rank = len(x.shape) + 1
    place = (dim if dim >= 0 else dim + rank + 1) - 1
    if place < 0:
        raise Refusal("a new axis before the batch axis")
    return x.reshape((*x.shape[:place], ONE, *x.shape[place:]))


@rule("squeeze")
def squeeze(t: Lifter, input: Any, dim: Any = None) -> Expr:
    """An axis of width 1 taken away."""
    x = t.lift(input, "the operand")
    axes = [a for a in _axes(t, x, dim) if x.shape[a].size == 1]
    return _keep(x, axes, keepdim=False)


@rule("flatten")
def flatten(t: Lifter, input: Any, start_dim: int = 0, end_dim: int = -1) -> Expr:
    """Axes made one."""
    x = t.lift(input, "the operand")
    first, last = _axis(t, x, start_dim), _axis(t, x, end_dim)
    rank = len(x.shape)
    merged = x.shape[first + rank : last + rank + 1]
    return x.reshape((*x.shape[: first + rank], _product(merged), *x.shape[last + rank + 1 :]))


@rule("unflatten")
def unflatten(t: Lifter, input: Any, dim: int, sizes: Any) -> Expr:
    """One axis made several."""
    x = t.lift(input, "the operand")
    axis, rank = _axis(t, x, dim), len(x.shape)
    return x.reshape((*x.shape[: axis + rank], *_split_dim(x.shape[axis], sizes), *x.shape[axis + rank + 1 :]))


@rule("view", "reshape")
def reshape(t: Lifter, input: Any, *shape: Any) -> Expr:
    """Another shape that leaves the batch axis alone."""
    x = t.lift(input, "the operand")
    sizes = list(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
    if not sizes or any(not isinstance(s, int) for s in sizes):
        raise Refusal("this reshape")
    total = math.prod(extent(x.shape))
    rest = sizes[1:]
    if sizes[0] == -1:
        if -1 in rest or math.prod(rest) != total:
            raise Refusal("a reshape that mixes the batch axis with others", "reshape(x.shape[0], ...)")
    elif sizes[0] != t.batch_size:
        raise Refusal("a reshape that mixes the batch axis with others", "reshape(x.shape[0], ...)")
    known = math.prod(s for s in rest if s != -1)
    rest = [total // known if s == -1 and known else s for s in rest]
    if math.prod(rest) != total:
        raise Refusal(f"a reshape of {show(x.shape)} to {tuple(rest)}")
    return x.reshape(tuple(_named(x.shape, s) for s in rest))


@rule("expand", "broadcast_to")
def expand(t: Lifter, input: Any, *size: Any) -> Expr:
    """Repeated along axes of width 1."""
    x = t.lift(input, "the operand")
    sizes = list(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
    if len(sizes) != len(x.shape) + 1 or sizes[0] not in (-1, t.batch_size):
        raise Refusal("an expansion over the batch axis", "unsqueeze the axis first, then expand it")
    wide = tuple(d if s in (-1, d.size) else Dim(s) for s, d in zip(sizes[1:], x.shape, strict=True))
    if any(d.size not in (1, w.size) for d, w in zip(x.shape, wide, strict=True)):
        raise Refusal(f"an expansion of {show(x.shape)} to {tuple(sizes[1:])}")
    return x.expand(wide)


@rule("expand_as")
def expand_as(t: Lifter, input: Any, other: Any) -> Expr:
    """Repeated to the shape of another value."""
    return expand(t, input, -1, *(d.size for d in t.lift(other, "the other").shape))


def _filled(t: Lifter, shape: Shape, value: Any) -> Expr:
    if not isinstance(value, bool | int | float):
        raise Refusal("a fill value that is a tensor", "a Python number")
    return t.builder.full(float(value), shape)


@rule("zeros_like")
def zeros_like(t: Lifter, input: Any, **_: Any) -> Expr:
    """Zeros of the same shape."""
    return _filled(t, t.lift(input, "the operand").shape, 0)


@rule("ones_like")
def ones_like(t: Lifter, input: Any, **_: Any) -> Expr:
    """Ones of the same shape."""
    return _filled(t, t.lift(input, "the operand").shape, 1)


@rule("full_like")
def full_like(t: Lifter, input: Any, fill_value: Any, **_: Any) -> Expr:
    """One number in the same shape."""
    return _filled(t, t.lift(input, "the operand").shape, fill_value)


def _new(t: Lifter, input: Any, size: Sequence[Any], value: Any) -> Expr:
    sizes = list(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
    if not sizes or sizes[0] != t.batch_size:
        raise Refusal("a new tensor without the batch axis", "x.new_zeros(x.shape[0], ...)")
    return _filled(t, tuple(_named(t.lift(input, "the operand").shape, s) for s in sizes[1:]), value)


@rule("new_zeros")
def new_zeros(t: Lifter, input: Any, *size: Any) -> Expr:
    """Zeros, one row a sequence."""
    return _new(t, input, size, 0)


@rule("new_ones")
def new_ones(t: Lifter, input: Any, *size: Any) -> Expr:
    """Ones, one row a sequence."""
    return _new(t, input, size, 1)


@rule("new_full")
def new_full(t: Lifter, input: Any, size: Any, fill_value: Any) -> Expr:
    """One number, one row a sequence."""
    return _new(t, input, (size,), fill_value)


def _product(shape: Shape) -> Dim:
    named = [d for d in shape if d.terms]
    size = math.prod(d.size for d in shape)
    return named[0] if len(named) == 1 and named[0].size == size else Dim(size)


def _split_dim(dim: Dim, sizes: Any) -> Shape:
    known = math.prod(s for s in sizes if s != -1)
    full = [dim.size // known if s == -1 and known else s for s in sizes]
    if math.prod(full) != dim.size:
        raise Refusal(f"an axis of width {dim.size} as {tuple(sizes)}")
    return tuple(map(Dim, full))


def _named(shape: Shape, size: int) -> Dim:
    """The width of that size among `shape`, with its name."""
    return next((d for d in shape if d.size == size), Dim(size))


# --- what a step must not do ------------------------------------------------------------------------------------------


@rule("__bool__", "__float__", "__int__", "__index__", "item", "tolist", "numpy", "any", "all", "nonzero", "argmax")
def value_of(t: Lifter, input: Any, *_: Any, **__: Any) -> Expr:
    """Python cannot branch on what is not yet computed."""
    raise Refusal("the step looks at the value of a tensor", "torch.where, maximum or minimum in place of if")


@rule("rand_like", "randn_like", "bernoulli", "randint_like", "multinomial", "normal")
def random_draw(t: Lifter, input: Any, *_: Any, **__: Any) -> Expr:
    """Randomness enters from outside."""
    raise Refusal("a random draw inside of a step", "a mask passed as an input or as a constant of the sequence")
