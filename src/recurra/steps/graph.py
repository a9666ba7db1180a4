"""A step as data: a frozen, printable graph that knows no cell, no time and no batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch

from recurra.shapes import ONE, Dim, Shape, broadcast, extent, show
from recurra.steps.ops import OPS, Kind


class Ref(NamedTuple):
    """Where a weight stood among the arguments of a torch function: the number of its node."""

    node: int


@dataclass(frozen=True)
class Node:
    """One value of a step: an operation, the nodes it reads, and its shape for one sequence, in letters.

    `attrs` belongs to the operation: the role and name of a leaf, the axes of a reduction, the bounds of a slice.
    """

    op: str
    args: tuple[int, ...]
    shape: Shape
    attrs: Any = ()

    @property
    def kind(self) -> Kind:
        """What the operation does to the units of a row."""
        return OPS[self.op].kind


@dataclass(frozen=True)
class StepGraph:
    """One step: nodes in an order in which they can be computed, and which of them are its ends.

    Leaves carry ``(role, name)``: the roles are ``input``, ``state``, ``constant``, ``weight``.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]  # frames: (N, ...) for all frames at once, or (B, ...) for one
    states: tuple[int, ...]  # what the frame before left
    constants: tuple[int, ...]  # one row a sequence
    outputs: tuple[int, ...]
    next_states: tuple[int, ...]  # in the order of `states`

    def __iter__(self) -> Iterator[tuple[int, Node]]:
        return iter(enumerate(self.nodes))

    def __str__(self) -> str:
        ends: dict[int, list[str]] = {}
        for k, i in enumerate(self.outputs):
            ends.setdefault(i, []).append(f"output {k}")
        for i, s in zip(self.next_states, self.states, strict=True):
            ends.setdefault(i, []).append(f"next {self.nodes[s].attrs[1]}")
        rows = []
        for i, node in self:
            read = ", ".join(f"%{a}" for a in node.args)
            attrs = f" {_show_attrs(node)}" if node.attrs != () else ""
            rows.append(
                f"%{i:<3} {node.op}({read}){attrs} {show(node.shape)}" + "".join(f"  -> {e}" for e in ends.get(i, []))
            )
        return "\n".join(rows)

    @cached_property
    def uses(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the nodes that read it."""
        readers: list[list[int]] = [[] for _ in self.nodes]
        for i, node in self:
            for a in node.args:
                readers[a].append(i)
        return tuple(map(tuple, readers))

    def number(self, node: int, dtype: torch.dtype) -> Any:
        """A constant: a float; a tensor where torch's choice between two of them would have its default dtype."""
        return torch.tensor(self.nodes[node].attrs, dtype=dtype) if node in self._chosen else self.nodes[node].attrs

    @cached_property
    def _chosen(self) -> frozenset[int]:
        number = lambda a: self.nodes[a].op == "const"
        pairs = [n.args[1:] for n in self.nodes if n.op == "where" and all(map(number, n.args[1:]))]
        return frozenset(a for pair in pairs for a in pair)


def _show_attrs(node: Node) -> str:
    if node.op == "call":
        function, args, kwargs = node.attrs
        shown = [_show_argument(a) for a in args] + [f"{k}={_show_argument(v)}" for k, v in kwargs]
        return f"{getattr(function, '__name__', function)}({', '.join(shown)})"
    return str(node.attrs)


def _show_argument(value: Any) -> str:
    if isinstance(value, Ref):
        return f"%{value.node}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_show_argument, value))})"
    return str(value)


class Builder:
    """Makes a graph node by node; equal nodes are one (common subexpressions, exact)."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._known: dict[Node, int] = {}

    def add(self, op: str, args: Sequence[int] = (), shape: Shape = (), attrs: Any = ()) -> int:
        """The number of a node, which may have been there before."""
        node = Node(op, tuple(args), shape, attrs)
        if op in ("call", "item"):  # a call may draw random numbers: never merged
            self.nodes.append(node)
            return len(self.nodes) - 1
        if node not in self._known:
            self._known[node] = len(self.nodes)
            self.nodes.append(node)
        return self._known[node]

    def expr(self, node: int) -> "Expr":
        """A node as something to compute with."""
        return Expr(self, node)

    def leaf(self, role: str, name: Any, shape: Shape) -> "Expr":
        """A value that comes from outside of the step."""
        return Expr(self, self.add("leaf", (), shape, (role, name)))

    def const(self, value: float | int | bool) -> "Expr":
        """A number; always a float, because 1 and 1.0 would be one node, of the type that came first."""
        return Expr(self, self.add("const", (), (), float(value)))

    def full(self, value: float, shape: Shape) -> "Expr":
        """A tensor of one number, the same for each row."""
        return Expr(self, self.add("full", (), shape, value))

    def graph(
        self,
        *,
        inputs: Sequence[int],
        states: Sequence[int],
        constants: Sequence[int],
        outputs: Sequence[int],
        next_states: Sequence[int],
    ) -> StepGraph:
        """The graph with these ends, without nodes that nothing needs."""
        keep = _needed(self.nodes, (*inputs, *states, *constants, *outputs, *next_states))
        number = {old: new for new, old in enumerate(keep)}
        nodes = tuple(renumbered(self.nodes[i], number) for i in keep)
        ends = ([number[i] for i in e] for e in (inputs, states, constants, outputs, next_states))
        return StepGraph(nodes, *map(tuple, ends))


def renumbered(node: Node, number: Mapping[int, int]) -> Node:
    """The same node in a graph where its arguments have other numbers."""
    attrs = node.attrs
    if node.op == "call":
        function, args, kwargs = attrs
        attrs = (function, _renumber_refs(args, number), _renumber_refs(kwargs, number))
    return Node(node.op, tuple(number[a] for a in node.args), node.shape, attrs)


def _renumber_refs(value: Any, number: Mapping[int, int]) -> Any:
    if isinstance(value, Ref):
        return Ref(number[value.node])
    return type(value)(_renumber_refs(v, number) for v in value) if type(value) in (tuple, list) else value


def _needed(nodes: Sequence[Node], roots: Sequence[int]) -> list[int]:
    wanted, todo = set(), list(roots)
    while todo:
        i = todo.pop()
        if i not in wanted:
            wanted.add(i)
            todo.extend(nodes[i].args)
    return sorted(wanted)  # a node is always added after what it reads


Operand = "Expr | float | int"


class Expr:
    """A node with the operators of arithmetic, so that rules read as the formulas they are."""

    __slots__ = ("builder", "node")

    def __init__(self, builder: Builder, node: int):
        self.builder, self.node = builder, node

    @property
    def shape(self) -> Shape:
        """The shape for one sequence."""
        return self.builder.nodes[self.node].shape

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape as numbers."""
        return extent(self.shape)

    def pointwise(self, op: str, *others: "Expr | float | int") -> "Expr":
        """An operation on each number, broadcasting."""
        operands = (self, *(self.builder.const(o) if isinstance(o, int | float) else o for o in others))
        shape = broadcast(*(o.shape for o in operands))
        assert shape is not None, f"{op} of {[show(o.shape) for o in operands]}"  # the trace has checked the user's own
        return Expr(self.builder, self.builder.add(op, [o.node for o in operands], shape))

    def reduce(self, op: str, axes: tuple[int, ...]) -> "Expr":
        """A reduction over `axes`, counted from the end; their width becomes 1."""
        if not axes:  # torch would take no axes as all
            return self
        rank = len(self.shape)
        shape = tuple(ONE if k - rank in axes else d for k, d in enumerate(self.shape))
        return Expr(self.builder, self.builder.add(op, [self.node], shape, axes))

    def standardize(self, count: int, eps: float) -> "Expr":
        """``(x - mean) s``, ``s = 1 / √(var + eps)`` over the last `count` axes; s is a value too, to be kept."""
        lead = (*self.shape[: len(self.shape) - count], *[ONE] * count)
        scale = self.builder.add("inverse_deviation", [self.node], lead, (count, eps))
        return Expr(self.builder, self.builder.add("standardize", [self.node, scale], self.shape, (count, eps)))

    def standardize_grad(self, y: "Expr", scale: "Expr", count: int) -> "Expr":
        """``s (g - mean(g) - y mean(g y))`` for a cotangent g of the standardised y."""
        read = [self.node, y.node, scale.node]
        return Expr(self.builder, self.builder.add("standardize_grad", read, y.shape, count))

    def slice(self, axis: int, start: int, stop: int) -> "Expr":
        """A range of one axis, counted from the end."""
        width = self.shape[axis]
        if (start, stop) == (0, width.size):
            return self
        node = self.builder.nodes[self.node]
        if node.op == "slice" and node.attrs[0] == axis:  # a slice of a slice is one slice
            inner = node.attrs[1]
            return Expr(self.builder, node.args[0]).slice(axis, inner + start, inner + stop)
        shape = _with(self.shape, axis, width.part(stop - start))
        return Expr(self.builder, self.builder.add("slice", [self.node], shape, (axis, start, stop)))

    def reshape(self, shape: Shape) -> "Expr":
        """The same numbers in another shape."""
        if extent(shape) == self.sizes:
            return self
        attrs = (len(self.shape), extent(shape))
        return Expr(self.builder, self.builder.add("reshape", [self.node], shape, attrs))

    def expand(self, shape: Shape) -> "Expr":
        """Repeated along axes of width 1."""
        if extent(shape) == self.sizes:
            return self
        attrs = (len(self.shape), extent(shape))
        return Expr(self.builder, self.builder.add("expand", [self.node], shape, attrs))

    def linear(self, weight: "Expr", addend: "Expr | None" = None) -> "Expr":
        """``self @ weight.T (+ addend)``, the weight ``(out, in)``."""
        shape = (*self.shape[:-1], weight.shape[0])
        args = [self.node, weight.node] + ([] if addend is None else [addend.node])
        return Expr(self.builder, self.builder.add("linear", args, shape))

    def block_linear(self, weight: "Expr") -> "Expr":
        """``self (G, K)`` times a block-diagonal weight ``(G, J, K)``: one product a head."""
        shape = (self.shape[0], weight.shape[1])
        return Expr(self.builder, self.builder.add("block_linear", [self.node, weight.node], shape))

    def transposed(self, *axes: int) -> "Expr":
        """A weight with its last two axes swapped."""
        return self.call(_swap_last, shape=(*self.shape[:-2], self.shape[-1], self.shape[-2]))

    def call(self, function: Any, *rest: Any, shape: Shape) -> "Expr":
        """A torch function of this weight."""
        attrs = (function, (Ref(self.node), *rest), ())
        return Expr(self.builder, self.builder.add("call", [self.node], shape, attrs))

    def __add__(self, other: "Expr | float") -> "Expr":
        return self.pointwise("add", other)

    def __sub__(self, other: "Expr | float") -> "Expr":
        return self.pointwise("sub", other)

    def __mul__(self, other: "Expr | float") -> "Expr":
        return self.pointwise("mul", other)

    def __truediv__(self, other: "Expr | float") -> "Expr":
        return self.pointwise("div", other)

    def __radd__(self, other: float) -> "Expr":
        return self.builder.const(other) + self

    def __rsub__(self, other: float) -> "Expr":
        return self.builder.const(other) - self

    def __rmul__(self, other: float) -> "Expr":
        return self.builder.const(other) * self

    def __rtruediv__(self, other: float) -> "Expr":
        return self.builder.const(other) / self

    def __neg__(self) -> "Expr":
        return self.pointwise("neg")


def _swap_last(weight: Any) -> Any:
    return weight.transpose(-1, -2)


def _with(shape: Shape, axis: int, dim: Dim) -> Shape:
    axis %= len(shape)
    return (*shape[:axis], dim, *shape[axis + 1 :])


def cat(parts: Sequence[Expr], axis: int) -> Expr:
    """Values side by side along `axis`, counted from the end."""
    if len(parts) == 1:
        return parts[0]
    rank = len(parts[0].shape)
    width = parts[0].shape[axis]
    for p in parts[1:]:
        width = width + p.shape[axis]
    builder = parts[0].builder
    shape = _with(parts[0].shape, axis, width)
    return Expr(builder, builder.add("cat", [p.node for p in parts], shape, (axis + rank, rank)))
