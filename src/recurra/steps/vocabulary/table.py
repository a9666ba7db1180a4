"""What a step may say: torch's names, written as primitives.

Each rule has the parameters of the torch function it stands for, after the tracer; it returns an expression, or a list
where torch returns a tuple. Kinks and ties follow torch's own derivatives. Adding an operation is adding a row.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch

from recurra.shapes import broadcast, extent, show
from recurra.steps.graph import Builder, Expr
from recurra.steps.ops import Kind


class Refusal(Exception):
    """Why a value or an operation cannot be derived; completed with the source line at the surface."""

    def __init__(self, what: str, instead: str = ""):
        super().__init__(what)
        self.what, self.instead = what, instead


class Lifter(Protocol):
    """What rules need of the tracer."""

    builder: Builder
    batch_size: int
    dtype: torch.dtype
    masks: set[int]  # weights that are booleans

    def lift(self, value: Any, where: str) -> Expr:
        """A symbol, a weight or a number as a node."""


# Questions about a symbol or a weight that its shape answers. Whether it needs a gradient is none of them.
PASSED_THROUGH = frozenset(
    "shape size dim ndim ndimension dtype device layout is_floating_point is_complex numel nelement "
    "__len__ is_cuda is_cpu is_sparse is_quantized is_nested get_device element_size itemsize __repr__ names "
    "is_contiguous stride is_conj is_neg is_meta is_mkldnn is_same_size".split()
)
RULES: dict[str, Callable[..., Any]] = {}


COMPARISONS = ("gt", "ge", "lt", "le", "eq", "ne", "greater", "less")
# What may be asked of booleans: they are compared, chosen by, moved and converted, and numbers beside numbers.
OF_MASKS = frozenset(COMPARISONS) | frozenset(
    "where masked_fill add radd mul rmul multiply maximum minimum to type type_as float double contiguous clone alias "
    "detach chunk split split_with_sizes narrow select unbind getitem unsqueeze squeeze flatten unflatten view reshape "
    "expand broadcast_to expand_as bool item tolist any all nonzero".split()
)


F = TypeVar("F", bound=Callable[..., Any])


def rule(*names: str) -> Callable[[F], F]:
    """Register a rule under torch's names for it."""

    def register(function: F) -> F:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def operands(t: Lifter, *values: Any, conditions: int = 0) -> list[Expr]:
    """Operands that broadcast row by row: a weight may not reach into the batch axis.

    The first `conditions` may be booleans; booleans among the others are numbers, if there is a number beside them.
    """
    exprs = [t.lift(v, f"operand {k}") for k, v in enumerate(values)]
    if any(is_mask(t, e) for e in exprs[conditions:]):
        rest = [e for e in exprs[conditions:] if t.builder.nodes[e.node].op != "const"]
        if all(is_mask(t, e) for e in rest):
            raise Refusal("booleans alone, of which torch makes no numbers of this dtype", "mask.to(x.dtype)")
        exprs[conditions:] = [as_number(t, e) for e in exprs[conditions:]]
    symbols = [len(e.shape) for e, v in zip(exprs, values, strict=True) if is_symbol(v)]
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
            mask = is_mask(t, e)
            e = e.call(_reshape_weight, extent(e.shape[extra:]), shape=e.shape[extra:])
            t.masks |= {e.node} if mask else set()
        fitted.append(e)
    if broadcast(*(e.shape for e in fitted)) is None:
        raise Refusal(f"shapes {', '.join(show(e.shape) for e in fitted)} do not broadcast")
    return fitted


def is_mask(t: Lifter, e: Expr) -> bool:
    """Whether a value is a boolean."""
    node = t.builder.nodes[e.node]
    if node.kind is Kind.LAYOUT or node.op == "detach":
        return is_mask(t, t.builder.expr(node.args[0]))
    return node.op in COMPARISONS or e.node in t.masks


def as_number(t: Lifter, e: Expr) -> Expr:
    """1 where a boolean is true, 0 where it is not; what is none stays as it is."""
    if e.node in t.masks:
        return e.call(converted, t.dtype, shape=e.shape)
    return e.pointwise("where", 1.0, 0.0) if is_mask(t, e) else e


def converted(weight: Any, dtype: torch.dtype) -> Any:
    """A weight in another dtype: written into graphs."""
    return weight.to(dtype)


def is_symbol(value: Any) -> bool:
    """Whether a value is one of the step, no weight and no number."""
    return isinstance(value, Expr) or hasattr(value, "expr")


def _reshape_weight(weight: Any, sizes: tuple[int, ...]) -> Any:
    return weight.reshape(sizes)


def refuse_inplace(flag: bool, name: str) -> None:
    """Refuse torch's ``inplace=True``."""
    if flag:
        raise Refusal(f"{name}=True changes a value in place", f"{name}=False")


def axes_of(t: Lifter, x: Expr, dim: Any) -> tuple[int, ...]:
    """Axes of a row, counted from the end; the batch axis is out of reach."""
    rank = len(x.shape) + 1
    if dim is None:
        raise Refusal("a reduction over everything, the batch included", "dim=-1")
    listed = [dim] if isinstance(dim, int) else list(dim)
    axes = tuple(sorted({d if d < 0 else d - rank for d in listed}))
    if not axes or axes[0] <= -rank or axes[-1] >= 0:
        raise Refusal("an operation over the batch axis", "dim=-1")
    return axes


def keep(x: Expr, axes: Sequence[int], keepdim: bool) -> Expr:
    """A reduced value with its axes of width 1, or without."""
    rank = len(x.shape)
    return x if keepdim else x.reshape(tuple(d for k, d in enumerate(x.shape) if k - rank not in axes))


def axis_of(t: Lifter, x: Expr, dim: int) -> int:
    """One axis of a row, counted from the end."""
    return axes_of(t, x, dim)[0]


def applied(name: str, t: Lifter, *values: Any) -> Expr:
    """The rule of that name, for use in another."""
    made: Expr = RULES[name](t, *values)
    return made
