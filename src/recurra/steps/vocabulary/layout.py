"""Where numbers stand: parts, shapes, and new values."""

import builtins
import math
from collections.abc import Sequence
from typing import Any

from recurra.shapes import ONE, Dim, Shape, extent, show
from recurra.steps.graph import Expr, cat
from recurra.steps.vocabulary.table import Lifter, Refusal, as_number, axes_of, axis_of, is_symbol, keep, rule


@rule("chunk")
def chunk(t: Lifter, input: Any, chunks: int, dim: int = 0) -> list[Expr]:
    """Equal parts along an axis, the last one smaller where it does not divide."""
    x = t.lift(input, "the operand")
    axis = axis_of(t, x, dim)
    return _pieces(x, axis, -(-x.shape[axis].size // chunks))


@rule("split", "split_with_sizes")
def split(t: Lifter, tensor: Any, split_size_or_sections: Any, dim: int = 0) -> list[Expr]:
    """Parts of given sizes along an axis."""
    x = t.lift(tensor, "the operand")
    axis = axis_of(t, x, dim)
    if isinstance(split_size_or_sections, int):
        return _pieces(x, axis, split_size_or_sections)
    bounds = [0]
    for size in split_size_or_sections:
        bounds.append(bounds[-1] + size)
    if bounds[-1] != x.shape[axis].size:
        raise Refusal(f"split into {list(split_size_or_sections)} of width {x.shape[axis].size}")
    return [_range(x, axis, a, b) for a, b in zip(bounds, bounds[1:], strict=False)]


def _pieces(x: Expr, axis: int, size: int) -> list[Expr]:
    width = x.shape[axis].size
    return [x.slice(axis, a, builtins.min(a + size, width)) for a in range(0, width, size)]


@rule("narrow")
def narrow(t: Lifter, input: Any, dim: int, start: int, length: int) -> Expr:
    """A range of an axis."""
    x = t.lift(input, "the operand")
    axis = axis_of(t, x, dim)
    width = x.shape[axis].size
    first = start + width if start < 0 else start
    if not 0 <= first <= first + length <= width:
        raise Refusal(f"a range from {start} of length {length} in an axis of width {width}")
    return _range(x, axis, first, first + length)


def _range(x: Expr, axis: int, start: int, stop: int) -> Expr:
    if start >= stop:
        raise Refusal("an empty range", "leave it out")
    return x.slice(axis, start, stop)


@rule("select")
def select(t: Lifter, input: Any, dim: int, index: int) -> Expr:
    """One place of an axis, the axis gone."""
    x = t.lift(input, "the operand")
    axis = axis_of(t, x, dim)
    at = _place(index, x.shape[axis].size)
    return keep(x.slice(axis, at, at + 1), (axis,), keepdim=False)


def _place(index: int, width: int) -> int:
    if not -width <= index < width:
        raise Refusal(f"the index {index} of an axis of width {width}")
    return index % width


@rule("unbind")
def unbind(t: Lifter, input: Any, dim: int = 0) -> list[Expr]:
    """Every place of an axis, the axis gone."""
    x = t.lift(input, "the operand")
    axis = axis_of(t, x, dim)
    return [select(t, input, axis, k) for k in range(x.shape[axis].size)]


@rule("getitem")
def getitem(t: Lifter, input: Any, index: Any) -> Expr:
    """Slices and whole numbers on axes of a row: ``gates[:, :H]``, ``gates[..., 0]``."""
    x = t.lift(input, "the operand")
    items = list(index) if isinstance(index, tuple) else [index]
    rank = len(x.shape) + 1
    if (
        any(not isinstance(i, slice | int | type(Ellipsis)) or isinstance(i, bool) for i in items)
        or items.count(...) > 1
    ):
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
            at = _place(item, width)
            x = x.slice(axis, at, at + 1)
            gone.append(axis)
            continue
        start, stop, step = item.indices(width)
        if step != 1:
            raise Refusal("an index with a stride", "slices with step 1")
        x = _range(x, axis, start, stop)
    return keep(x, gone, keepdim=False)


@rule("cat", "concat", "concatenate")
def concatenate(t: Lifter, tensors: Sequence[Any], dim: int = 0) -> Expr:
    """Values side by side."""
    parts = [as_number(t, t.lift(v, f"part {k}")) for k, v in enumerate(tensors)]
    symbols = [p for p, v in zip(parts, tensors, strict=True) if is_symbol(v)]
    axis = axis_of(t, symbols[0], dim)
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
    axes = [a for a in axes_of(t, x, dim) if x.shape[a].size == 1]
    return keep(x, axes, keepdim=False)


@rule("flatten")
def flatten(t: Lifter, input: Any, start_dim: int = 0, end_dim: int = -1) -> Expr:
    """Axes made one."""
    x = t.lift(input, "the operand")
    first, last = axis_of(t, x, start_dim), axis_of(t, x, end_dim)
    rank = len(x.shape)
    merged = x.shape[first + rank : last + rank + 1]
    return x.reshape((*x.shape[: first + rank], _product(merged), *x.shape[last + rank + 1 :]))


@rule("unflatten")
def unflatten(t: Lifter, input: Any, dim: int, sizes: Any) -> Expr:
    """One axis made several."""
    x = t.lift(input, "the operand")
    axis, rank = axis_of(t, x, dim), len(x.shape)
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


def _filled(t: Lifter, shape: Shape, value: Any, dtype: Any = None) -> Expr:
    if dtype not in (None, t.dtype):
        raise Refusal(f"a value in {dtype} inside of a step", "one dtype in the whole step")
    if not isinstance(value, bool | int | float):
        raise Refusal("a fill value that is a tensor", "a Python number")
    return t.builder.full(float(value), shape)


@rule("zeros_like")
def zeros_like(t: Lifter, input: Any, *, dtype: Any = None, **_: Any) -> Expr:
    """Zeros of the same shape."""
    return _filled(t, t.lift(input, "the operand").shape, 0, dtype)


@rule("ones_like")
def ones_like(t: Lifter, input: Any, *, dtype: Any = None, **_: Any) -> Expr:
    """Ones of the same shape."""
    return _filled(t, t.lift(input, "the operand").shape, 1, dtype)


@rule("full_like")
def full_like(t: Lifter, input: Any, fill_value: Any, *, dtype: Any = None, **_: Any) -> Expr:
    """One number in the same shape."""
    return _filled(t, t.lift(input, "the operand").shape, fill_value, dtype)


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


@rule("requires_grad", "is_leaf", "grad_fn")
def gradient_of(t: Lifter, input: Any, *_: Any, **__: Any) -> Expr:
    """Whether gradients are wanted changes from call to call."""
    raise Refusal("the step asks whether a tensor needs a gradient", "detach() where none is to run")


@rule("__bool__", "__float__", "__int__", "__index__", "item", "tolist", "numpy", "any", "all", "nonzero", "argmax")
def value_of(t: Lifter, input: Any, *_: Any, **__: Any) -> Expr:
    """Python cannot branch on what is not yet computed."""
    raise Refusal("the step looks at the value of a tensor", "torch.where, maximum or minimum in place of if")


@rule("rand_like", "randn_like", "bernoulli", "randint_like", "multinomial", "normal")
def random_draw(t: Lifter, input: Any, *_: Any, **__: Any) -> Expr:
    """Randomness enters from outside."""
    raise Refusal("a random draw inside of a step", "a mask passed as an input or as a constant of the sequence")
