"""A step as operations on flat rows of numbers: what a machine without shapes can run.

Slices, joints and reshapes become *views*: ranges of other rows. What cannot be a range (a repeated axis, a slice of an
inner axis) becomes a map of positions. Products over leading axes become one product a block.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod

from recurra.shapes import extent, numel
from recurra.steps.ops import OPS, Kind
from recurra.steps.stages import Scope, Stage, Staged

Range = tuple[int, int, int]  # row, first number, behind the last
Extent = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One value: what it is, what it reads, and how many numbers it has.

    The operations are ``input``, ``state``, ``once`` (one row a sequence), ``vector`` (of weights), ``number``,
    ``view``, ``product``, ``reduce``, ``map``, and the names of pointwise operations.
    """

    op: str
    width: int
    stage: Stage
    args: tuple[int, ...] = ()
    parts: tuple[Range, ...] = ()  # of a view
    source: int = -1  # the node of the graph: of a leaf, or of a weight
    extent: Extent = ()  # of a vector: the shape to which the weight is expanded
    number: float = 0.0
    blocks: tuple[tuple[int, int | None], ...] = ()  # of a product: (block of the operand, head of the weight or None)
    outer: int = 0  # of a reduction
    inner: int = 0
    reduction: str = ""
    pairs: tuple[tuple[int, int], ...] = ()  # of a map: from, to


@dataclass
class Rows:
    """The rows of a step, and where the nodes of its graph are among them."""

    rows: list[Row] = field(default_factory=list)
    of: dict[int, int] = field(default_factory=dict)  # node of the graph -> row

    def add(self, row: Row) -> int:
        """The number of a new row."""
        self.rows.append(row)
        return len(self.rows) - 1

    def reads(self, i: int) -> list[int]:
        """The rows that a row reads."""
        return [*self.rows[i].args, *(p for p, _, _ in self.rows[i].parts)]

    def resolve(self, i: int, lo: int = 0, hi: int | None = None) -> list[Range]:
        """The ranges of rows that are no views that make up a range of a row."""
        row = self.rows[i]
        hi = row.width if hi is None else hi
        if row.op != "view":
            return [(i, lo, hi)]
        found: list[Range] = []
        at = 0
        for part, first, last in row.parts:
            start, stop = max(lo, at), min(hi, at + last - first)
            if start < stop:
                found += self.resolve(part, first + start - at, first + stop - at)
            at += last - first
        merged: list[Range] = []
        for b, first, last in found:
            if merged and merged[-1][0] == b and merged[-1][2] == first:
                merged[-1] = (b, merged[-1][1], last)
            else:
                merged.append((b, first, last))
        return merged


def rows_of(staged: Staged) -> Rows:
    """The rows of a staged graph."""
    made = _Making(staged)
    for i, _ in staged.graph:
        made.node(i)
    _fuse(made.rows, staged)
    return made.rows


class _Making:
    def __init__(self, staged: Staged):
        self.staged, self.graph, self.rows = staged, staged.graph, Rows()
        self.numbers: dict[float, int] = {}
        self.vectors: dict[tuple[int, Extent], int] = {}

    def node(self, i: int) -> None:
        node, scope, stage = self.graph.nodes[i], self.staged.scope[i], self.staged.stage[i]
        width, args = numel(node.shape), node.args
        add, of = self.rows.add, self.rows.of
        if scope is Scope.WEIGHT:
            return  # as its readers need it
        if scope is Scope.SEQUENCE:
            of[i] = add(Row("once", width, Stage.HOIST, source=i))
        elif node.op == "leaf":
            of[i] = add(Row("state" if i in self.graph.states else "input", width, stage, source=i))
        elif node.op in ("reshape", "detach"):
            of[i] = add(Row("view", width, stage, parts=((self.row(args[0]), 0, width),)))
        elif node.op == "slice":
            of[i] = self.moved(self.row(args[0]), *self._sliced(i), stage)
        elif node.op == "cat":
            of[i] = self.joined(i)
        elif node.op == "expand":
            of[i] = self.expanded(self.row(args[0]), extent(self.graph.nodes[args[0]].shape), extent(node.shape), stage)
        elif node.kind is Kind.CONTRACTION:
            of[i] = self.product(i)
        elif node.op in ("inverse_deviation", "standardize", "standardize_grad"):
            count, eps = (node.attrs, 0.0) if node.op == "standardize_grad" else node.attrs
            whole = extent(self.graph.nodes[args[0]].shape)
            inner = prod(whole[len(whole) - count :])
            of[i] = add(
                Row("reduce", width, stage, tuple(map(self.row, args)), outer=prod(whole) // inner, inner=inner,
                    reduction=node.op, number=eps)
            )  # fmt: skip
        elif node.kind is Kind.REDUCTION:
            of[i] = self.reduced(i)
        else:
            assert OPS[node.op].kind is Kind.POINTWISE, node.op
            wide = extent(node.shape)
            of[i] = add(Row(node.op, width, stage, tuple(self.operand(a, wide, stage) for a in args)))

    def row(self, i: int) -> int:
        """The row of a node that may be a weight."""
        if self.staged.scope[i] is Scope.WEIGHT:
            return self.weight(i, extent(self.graph.nodes[i].shape))
        return self.rows.of[i]

    def weight(self, i: int, wide: Extent) -> int:
        node = self.graph.nodes[i]
        if node.op == "const":
            if node.attrs not in self.numbers:
                self.numbers[node.attrs] = self.rows.add(Row("number", 1, Stage.WEIGHT, number=node.attrs))
            return self.numbers[node.attrs]
        if (i, wide) not in self.vectors:
            self.vectors[i, wide] = self.rows.add(Row("vector", prod(wide), Stage.WEIGHT, source=i, extent=wide))
        return self.vectors[i, wide]

    def operand(self, i: int, wide: Extent, stage: Stage) -> int:
        """A node as wide as the operation that reads it."""
        node = self.graph.nodes[i]
        if self.staged.scope[i] is Scope.WEIGHT:
            return self.weight(i, wide)
        own = (1,) * (len(wide) - len(node.shape)) + extent(node.shape)
        return self.expanded(self.rows.of[i], own, wide, self.staged.stage[i] if own != wide else stage)

    def expanded(self, row: int, own: Extent, wide: Extent, stage: Stage) -> int:
        own = (1,) * (len(wide) - len(own)) + own
        if prod(own) == prod(wide):
            return row
        split = next((k for k in range(len(wide)) if own[k:] == (1,) * len(own[k:]) and own[:k] == wide[:k]), None)
        if split is not None:  # each number of the row is repeated
            outer, inner = prod(wide[:split]), prod(wide[split:])
            return self.rows.add(
                Row("reduce", outer * inner, stage, (row,), outer=outer, inner=inner, reduction="spread")
            )
        strides = _strides(own)
        source = [sum(s * (k if n > 1 else 0) for s, k, n in zip(strides, at, own, strict=True)) for at in _grid(wide)]
        return self.moved(row, source, stage)

    def _sliced(self, i: int) -> tuple[list[int]]:
        node = self.graph.nodes[i]
        axis, start, stop = node.attrs
        of = extent(self.graph.nodes[node.args[0]].shape)
        axis %= len(of)
        strides = _strides(of)
        ranges = [range(start, stop) if k == axis else range(n) for k, n in enumerate(of)]
        return ([sum(s * k for s, k in zip(strides, at, strict=True)) for at in product(*ranges)],)

    def moved(self, row: int, source: list[int], stage: Stage) -> int:
        """The numbers of a row at these positions: a view where they lie side by side."""
        if source == list(range(source[0], source[0] + len(source))):
            return self.rows.add(Row("view", len(source), stage, parts=((row, source[0], source[0] + len(source)),)))
        return self.rows.add(Row("map", len(source), stage, (row,), pairs=tuple((s, k) for k, s in enumerate(source))))

    def joined(self, i: int) -> int:
        node, stage = self.graph.nodes[i], self.staged.stage[i]
        axis = node.attrs[0]
        shape = extent(node.shape)
        parts = [(self.row(a), extent(self.graph.nodes[a].shape)) for a in node.args]
        whole = Row("view", numel(node.shape), stage, parts=tuple((r, 0, prod(e)) for r, e in parts))
        joint = self.rows.add(whole)
        if prod(shape[:axis]) == 1:
            return joint
        source, base = {}, 0  # position in the joint value -> position in the parts side by side
        start = 0
        for _, e in parts:
            strides = _strides(shape)
            for k, at in enumerate(_grid(e)):
                moved = (*at[:axis], at[axis] + start, *at[axis + 1 :])
                source[sum(s * p for s, p in zip(strides, moved, strict=True))] = base + k
            base, start = base + prod(e), start + e[axis]
        return self.moved(joint, [source[k] for k in range(len(source))], stage)

    def reduced(self, i: int) -> int:
        node, stage = self.graph.nodes[i], self.staged.stage[i]
        of = extent(self.graph.nodes[node.args[0]].shape)
        axes = sorted(k % len(of) for k in node.attrs)
        row = self.row(node.args[0])
        kept = [k for k in range(len(of)) if k not in axes]
        if axes != list(range(len(kept), len(of))):  # what is reduced comes last
            strides = _strides(of)
            order = [*kept, *axes]
            source = [
                sum(strides[k] * p for k, p in zip(order, at, strict=True))
                for at in product(*(range(of[k]) for k in order))
            ]
            row = self.moved(row, source, stage)
        outer, inner = prod(of[k] for k in kept), prod(of[k] for k in axes)
        return self.rows.add(Row("reduce", outer, stage, (row,), outer=outer, inner=inner, reduction=node.op))

    def product(self, i: int) -> int:
        node, stage = self.graph.nodes[i], self.staged.stage[i]
        operand = self.graph.nodes[node.args[0]]
        k, n = operand.shape[-1].size, node.shape[-1].size
        count = numel(node.shape) // n
        heads = node.op == "block_linear"
        addend = [self.operand(a, extent(node.shape), stage) for a in node.args[2:]]
        blocks = tuple((b, b if heads else None) for b in range(count))
        return self.rows.add(
            Row("product", count * n, stage, (self.row(node.args[0]), *addend), source=node.args[1], outer=n, inner=k,
                blocks=blocks)
        )  # fmt: skip


def _strides(of: Extent) -> list[int]:
    return [prod(of[k + 1 :]) for k in range(len(of))]


def _grid(of: Extent) -> Iterable[tuple[int, ...]]:
    return product(*map(range, of))


def _fuse(made: Rows, staged: Staged) -> None:
    """``a b + c``, ``a b - c`` and ``c - a b`` in one operation, where the product has no other reader.

    What is kept for the backward pass has no say in it, so that training and inference compute the same bits; a product
    that is kept is then made beside the sum. The derivative of a sigmoid, ``(1 - y) y``, is ``y - y y``.
    """
    rows, readers = made.rows, [0] * len(made.rows)
    for i in range(len(rows)):
        for a in made.reads(i):
            readers[a] += 1
    ends = {made.of[i] for i in (*staged.graph.outputs, *staged.graph.next_states) if i in made.of}

    def inner(row: Row, place: int, op: str) -> Row | None:
        """An operand of that operation that nobody else reads, of the same width and stage."""
        a = row.args[place]
        below = rows[a]
        alone = readers[a] == 1 and a not in ends
        return below if alone and (below.op, below.width, below.stage) == (op, row.width, row.stage) else None

    def product(a: int) -> bool:
        """A product, or minus one."""
        below = rows[a]
        return product(below.args[0]) if below.op == "neg" else below.op == "mul"

    for i, row in enumerate(rows):
        for place in (1, 0) if row.op == "sub" else (0, 1):
            # Of a a - b b one product would be rounded and the other not: where a = b, the root of it is not a number.
            if row.op == "sub" and product(row.args[1 - place]):
                continue
            if row.op in ("add", "sub") and (below := inner(row, place, "mul")):
                op = "fma" if row.op == "add" else ("fms", "fnma")[place]
                rows[i] = replace(row, op=op, args=(*below.args, row.args[1 - place]))
                break
            if row.op == "mul" and (below := inner(row, place, "sub")):
                one, y = (rows[below.args[0]], below.args[1])
                if one.op == "number" and one.number == 1.0 and y == row.args[1 - place]:
                    rows[i] = replace(row, op="fnma", args=(y, y, y))
                    break
