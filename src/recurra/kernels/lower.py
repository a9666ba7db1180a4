"""From a staged step to a program of the native machine: instructions on row buffers.

Pointwise work is cut into *pieces* of equal width, which run strip by strip in one group; what only the group reads
lives in slots of a strip, in a first-level cache. A value gets a buffer where somebody else reads it: a product, a
reduction, another stage, the outside.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

from recurra.kernels.rows import Extent, Range, Row, Rows, rows_of
from recurra.steps.stages import Scope, Stage, Staged

NOTHING = 2**31 - 1
# In the order of the table in kernels/cpu/pointwise.h.
OPERATIONS = (
    "copy add sub mul div neg fma fms fnma sigmoid tanh relu exp expm1 log log1p sqrt erf abs sign maximum minimum "
    "gt ge lt le eq ne where"
).split()
_CODE = {name: k for k, name in enumerate(OPERATIONS)}
REDUCTIONS = ("sum", "mean", "amax", "standardize", "standardize_grad", "spread")  # as in kernels/cpu/machine.h
STAGES = (Stage.HOIST, Stage.LOOP, Stage.SINK)
_BEFORE = {Stage.WEIGHT: -1, Stage.HOIST: 0, Stage.LOOP: 1, Stage.SINK: 2}


class Home(IntEnum):
    """Where the rows of a buffer live, as in kernels/cpu/machine.h."""

    ROW, FRAME, CHUNK, TAPE, INPUT, OUTPUT, STATE, ONCE = range(8)


class Operand(NamedTuple):
    """Numbers into the rows of a buffer; a slot where `buffer` is negative."""

    buffer: int
    offset: int


_NONE = Operand(NOTHING, 0)


@dataclass(frozen=True)
class Contraction:
    """Σ over rows of g ⊗ a into a gradient; Σ g where there is no a."""

    g: int  # nodes of the graph
    a: int | None
    heads: bool = False
    width: tuple[int, int] = (0, 0)  # of a row of g, of a: where they have leading axes, these are rows too


@dataclass
class Program:
    """Tables for the machine, and what must be given to a run in which order."""

    buffers: list[tuple[int, int, int]] = field(default_factory=list)  # home, width, index
    instructions: dict[Stage, list[tuple[int, ...]]] = field(default_factory=lambda: {s: [] for s in STAGES})
    numbers: list[float] = field(default_factory=lambda: [0.0])
    micros: list[tuple[int, ...]] = field(default_factory=list)
    pairs: list[int] = field(default_factory=list)
    constants: list[float] = field(default_factory=list)
    contractions: list[tuple[int, ...]] = field(default_factory=list)
    gradients: list[tuple[int, int, int]] = field(default_factory=list)
    states: list[tuple[int, int, int, int]] = field(default_factory=list)
    matrix_sizes: list[tuple[int, int]] = field(default_factory=list)
    slots: int = 0
    widest: int = 1
    vectors: list[tuple[int, Extent]] = field(default_factory=list)  # weight nodes, expanded to a shape
    matrices: list[tuple[int, int | None]] = field(default_factory=list)  # weight nodes, and which head
    inputs: list[int] = field(default_factory=list)  # positions in the graph's inputs
    outputs: list[int] = field(default_factory=list)  # nodes
    once: list[int] = field(default_factory=list)  # nodes
    tapes: list[tuple[int, int]] = field(default_factory=list)  # node, width


class _Piece(NamedTuple):
    row: int
    lo: int
    hi: int


@dataclass
class _Copy:
    """A range of a row to be copied into a buffer."""

    source: Range
    to: Operand


_Item = _Piece | _Copy | int  # int: a row that is no piece


def lower(
    staged: Staged,
    *,
    outputs: Sequence[int],
    keep: Sequence[int] = (),
    taped: Iterable[int] = (),
    contractions: Sequence[Contraction] = (),
    inline: bool = True,
) -> Program:
    """The program of a staged graph.

    Args:
        staged: the step, forward or backward.
        outputs: nodes whose value of every frame goes outside.
        keep: nodes whose value of every frame is kept on a tape, in this order.
        taped: inputs, by position, that come from tapes instead: in this order, behind those kept.
        contractions: sums over all rows, for weight gradients.
        inline: pointwise work is done inside of the loop wherever it can be; worth it where a frame has many rows.
    """
    return _Lowering(staged, outputs, keep, tuple(taped), contractions, inline).program


class _Lowering:
    def __init__(
        self,
        staged: Staged,
        outputs: Sequence[int],
        keep: Sequence[int],
        taped: tuple[int, ...],
        contractions: Sequence[Contraction],
        inline: bool,
    ):
        self.staged, self.graph, self.program = staged, staged.graph, Program()
        self.made: Rows = rows_of(staged)
        self.rows = self.made.rows
        self.state_of = {self.made.of[s]: k for k, s in enumerate(self.graph.states)}
        self.taped = taped
        self.keep = list(keep)
        self.own: dict[int, int] = {}  # row -> buffer of its own
        self.store: dict[int, int] = {}  # state -> buffer that keeps it frame by frame
        self.keys: dict[tuple[Range, ...], int] = {}  # ranges that must lie side by side -> buffer
        self.targets: dict[int, list[tuple[Range, Operand]]] = {}  # row -> where ranges of it must (also) be
        self.copies: list[_Copy] = []
        for k, s in enumerate(self.graph.states):
            width = self.rows[self.made.of[s]].width
            self.own[self.made.of[s]] = self._buffer(Home.STATE, width, k)
        self.live = self._live([*outputs, *keep, *(i for c in contractions for i in (c.g, c.a) if i is not None)])
        if inline:
            self._inline(outputs, keep, contractions)
        self._leaves()
        # Who needs rows side by side, and how far they must reach: 1 a frame, 2 a chunk.
        self.reach: dict[tuple[Range, ...], int] = {}
        self._demand(contractions)
        self.cuts = self._cuts()
        self._targets(outputs)
        self._emit()
        self._ends(contractions)

    # --- what is needed, and when -----------------------------------------------------------------------------------

    def _live(self, nodes: Sequence[int]) -> set[int]:
        todo = [self._row(i) for i in (*nodes, *self.graph.next_states)]
        seen: set[int] = set()
        while todo:
            i = todo.pop()
            if i not in seen:
                seen.add(i)
                todo += [*self.rows[i].args, *(p for p, _, _ in self.rows[i].parts)]
        return seen

    def _row(self, node: int) -> int:
        if node not in self.made.of:  # a weight, or a number, as an end of the step
            shape = tuple(d.size for d in self.graph.nodes[node].shape)
            n = self.graph.nodes[node]
            if n.op == "const":
                self.made.of[node] = self.made.add(Row("number", 1, Stage.WEIGHT, number=n.attrs))
            else:
                width = 1
                for d in shape:
                    width *= d
                self.made.of[node] = self.made.add(Row("vector", width, Stage.WEIGHT, source=node, extent=shape))
        return self.made.of[node]

    def _inline(self, outputs: Sequence[int], keep: Sequence[int], contractions: Sequence[Contraction]) -> None:
        """Moves pointwise work of HOIST and SINK into the loop where nothing but the loop's own work is near it."""
        held = {self._row(i) for i in (*outputs, *keep)}
        held |= {self._row(i) for c in contractions for i in (c.g, c.a) if i is not None}
        readers: dict[int, list[int]] = {i: [] for i in range(len(self.rows))}
        for i in self.live:
            for a in (*self.rows[i].args, *(p for p, _, _ in self.rows[i].parts)):
                readers[a].append(i)
        ends = {self._row(i) for i in self.graph.next_states}
        for i in sorted(self.live, reverse=True):
            row = self.rows[i]
            light = row.op in _CODE or row.op == "view"
            if row.stage is Stage.HOIST and light and (readers[i] or i in ends) and i not in held:
                reads = [self.rows[r] for r in readers[i]]
                if all(r.stage is Stage.LOOP and (r.op in _CODE or r.op == "view") for r in reads):
                    self.rows[i] = replace(row, stage=Stage.LOOP)
        for i in sorted(self.live):
            row = self.rows[i]
            if row.stage is Stage.SINK and (row.op in _CODE or row.op == "view"):
                reads = [*row.args, *(p for p, _, _ in row.parts)]
                if all(self.rows[r].stage is not Stage.SINK for r in reads):
                    self.rows[i] = replace(row, stage=Stage.LOOP)

    # --- buffers ----------------------------------------------------------------------------------------------------

    def _buffer(self, home: Home, width: int, index: int = 0) -> int:
        self.program.buffers.append((int(home), width, index))
        return len(self.program.buffers) - 1

    def _leaves(self) -> None:
        p = self.program
        position = {self.made.of[i]: k for k, i in enumerate(self.graph.inputs)}
        p.tapes = [(i, self.rows[self._row(i)].width) for i in self.keep]
        p.tapes += [(self.graph.inputs[k], self.rows[self.made.of[self.graph.inputs[k]]].width) for k in self.taped]
        for i in sorted(self.live):
            row = self.rows[i]
            if row.op == "input":
                k = position[i]
                if k in self.taped:
                    self.own[i] = self._buffer(Home.TAPE, row.width, len(self.keep) + self.taped.index(k))
                else:
                    p.inputs.append(k)
                    self.own[i] = self._buffer(Home.INPUT, row.width, len(p.inputs) - 1)
            elif row.op == "once":
                p.once.append(row.source)
                self.own[i] = self._buffer(Home.ONCE, row.width, len(p.once) - 1)
            elif row.op == "number":
                p.constants.append(row.number)
                self.own[i] = self._buffer(Home.ROW, 1, len(p.constants) - 1)
        for i in sorted(self.live):
            row = self.rows[i]
            if row.op == "vector":
                p.vectors.append((row.source, row.extent))
                self.own[i] = self._buffer(Home.ROW, row.width, len(p.constants) + len(p.vectors) - 1)

    def _demand(self, contractions: Sequence[Contraction]) -> None:
        for i in self.live:
            row = self.rows[i]
            if row.op in ("product", "reduce", "map"):
                for a in row.args:
                    self._need(a, 1 if row.stage is Stage.LOOP else 2, row.stage)
            elif row.op in _CODE and row.stage is not Stage.LOOP:
                for b, _, _ in (r for a in row.args for r in self.made.resolve(a)):
                    if self.rows[b].op == "state":
                        self._stored(b)
                    elif self.rows[b].op in ("product", "reduce", "map"):
                        self.reach[((b, 0, self.rows[b].width),)] = 2
        for c in contractions:
            for node in (c.g, c.a):
                if node is not None:
                    self._need(self._row(node), 2, Stage.SINK)
        for s, node in zip(self.graph.states, self.graph.next_states, strict=True):
            if self.made.resolve(self._row(node)) != self.made.resolve(self.made.of[s]):
                self._need(self._row(node), 1, Stage.LOOP, state=True)

    def _need(self, i: int, reach: int, stage: Stage, *, state: bool = False) -> None:
        ranges = tuple(self.made.resolve(i))
        if len(ranges) == 1:
            base = ranges[0][0]
            op = self.rows[base].op
            if op in ("input", "once") or (op in ("vector",) and not state):
                return
            if op == "state" and (stage is Stage.LOOP) and not state:
                return
            if op == "state" and not state:
                self._stored(base)
                return
            if op in ("product", "reduce", "map"):
                ranges = ((base, 0, self.rows[base].width),)  # its own buffer holds all of it
        self.reach[ranges] = max(self.reach.get(ranges, 0), reach)

    def _stored(self, base: int) -> int:
        """The buffer in which a state is kept frame by frame."""
        if base not in self.store:
            self.store[base] = self._buffer(Home.CHUNK, self.rows[base].width)
        return self.store[base]

    def _cuts(self) -> dict[int, list[int]]:
        cuts = {i: {0, self.rows[i].width} for i in self.live if self.rows[i].op in _CODE}
        wanted: list[tuple[Range, ...]] = [*self.reach]
        wanted += [tuple(self.made.resolve(self._row(i))) for i in (*self.keep, *self.graph.outputs)]
        for ranges in wanted:
            for b, lo, hi in ranges:
                if b in cuts:
                    cuts[b] |= {lo, hi}
        links = []  # (piece's row, position there, row, position there, numbers)
        for i in cuts:
            for a in self.rows[i].args:
                at = 0
                if self.rows[a].op == "number":
                    continue
                for b, lo, hi in self.made.resolve(a):
                    cuts[i] |= {at, at + hi - lo}
                    if b in cuts:
                        cuts[b] |= {lo, hi}
                        links.append((i, at, b, lo, hi - lo))
                    at += hi - lo
        changed = True
        while changed:
            changed = False
            for i, at, b, lo, n in links:
                here = {c - at for c in cuts[i] if at < c < at + n}
                there = {c - lo for c in cuts[b] if lo < c < lo + n}
                if here != there:
                    cuts[i] |= {at + c for c in there}
                    cuts[b] |= {lo + c for c in here}
                    changed = True
        return {i: sorted(c) for i, c in cuts.items()}

    def _pieces(self, i: int) -> list[_Piece]:
        c = self.cuts[i]
        return [_Piece(i, lo, hi) for lo, hi in pairwise(c)]

    def _targets(self, outputs: Sequence[int]) -> None:
        """Gives every demand a buffer; what is computed is then written there at once."""
        p = self.program
        fixed: dict[tuple[Range, ...], list[int]] = {}
        for node in dict.fromkeys(outputs):
            p.outputs.append(node)
            row = self._row(node)
            ranges = tuple(self.made.resolve(row))
            fixed.setdefault(ranges, []).append(self._buffer(Home.OUTPUT, self.rows[row].width, len(p.outputs) - 1))
        for k, node in enumerate(self.keep):
            row = self._row(node)
            if self.rows[row].op == "state":
                if row in self.store:
                    self.program.buffers[self.store[row]] = (int(Home.TAPE), self.rows[row].width, k)
                else:
                    self.store[row] = self._buffer(Home.TAPE, self.rows[row].width, k)
                continue
            ranges = tuple(self.made.resolve(row))
            fixed.setdefault(ranges, []).append(self._buffer(Home.TAPE, self.rows[row].width, k))
        for ranges, buffers in fixed.items():
            self.keys[ranges] = buffers[0]
            for b in buffers:
                self._aim(ranges, b)
        for ranges, reach in self.reach.items():
            if ranges in self.keys:
                continue
            width = sum(hi - lo for _, lo, hi in ranges)
            loop = all(self._in_loop(b) for b, _, _ in ranges)
            buffer = self._buffer(Home.FRAME if reach == 1 and loop else Home.CHUNK, width)
            self.keys[ranges] = buffer
            self._aim(ranges, buffer)

    def _in_loop(self, b: int) -> bool:
        row = self.rows[b]
        return row.stage is Stage.LOOP or row.op in ("vector", "number", "once", "input", "state")

    def _aim(self, ranges: tuple[Range, ...], buffer: int) -> None:
        at = 0
        for b, lo, hi in ranges:
            row, to = self.rows[b], Operand(buffer, at)
            if row.op in ("product", "reduce", "map"):
                if b not in self.own and (lo, hi) == (0, row.width) and len(ranges) == 1:
                    self.own[b] = buffer
                else:
                    self.copies.append(_Copy((b, lo, hi), to))
            elif row.op in _CODE:
                self.targets.setdefault(b, []).append(((b, lo, hi), to))
            else:
                self.copies.append(_Copy((b, lo, hi), to))
            at += hi - lo

    # --- instructions -----------------------------------------------------------------------------------------------

    def _emit(self) -> None:
        for i in self.live:  # products and the like that nobody asked to be anywhere
            row = self.rows[i]
            if row.op in ("product", "reduce", "map") and i not in self.own:
                self.own[i] = self._buffer(self._home_for(i, row), row.width)
        self.at: dict[_Piece, list[Operand]] = {}
        for i in sorted(self.cuts):
            for piece in self._pieces(i):
                found = [
                    Operand(to.buffer, to.offset + piece.lo - lo)
                    for (_, lo, hi), to in self.targets.get(i, [])
                    if lo <= piece.lo and piece.hi <= hi
                ]
                if found:
                    self.at[piece] = found
        self.done: set[int | _Piece] = set()
        groups: list[tuple[Stage, list[_Item]]] = []
        for stage in STAGES:
            groups += [(stage, g) for g in self._schedule(stage)]
        self._settle(groups)
        for stage, items in groups:
            if isinstance(items[0], int):
                for i in items:
                    assert isinstance(i, int)
                    self._single(stage, i)
            else:
                self._group(stage, items)

    def _home_for(self, i: int, row: Row) -> Home:
        if row.stage is not Stage.LOOP:
            return Home.CHUNK
        outside = any(
            self.rows[r].stage is not Stage.LOOP
            for r in self.live
            for b in (*self.rows[r].args, *(p for p, _, _ in self.rows[r].parts))
            if any(x[0] == i for x in self.made.resolve(b))
        )
        return Home.CHUNK if outside else Home.FRAME

    def _stage_of(self, item: _Item) -> Stage:
        if isinstance(item, _Copy):
            row = self.rows[item.source[0]]
            if row.op in ("product", "reduce", "map"):
                return row.stage
            home = self.program.buffers[item.to.buffer][0]
            if row.op == "state" or home == Home.FRAME:
                return Stage.LOOP
            return Stage.HOIST
        return self.rows[item if isinstance(item, int) else item.row].stage

    def _waits(self, item: _Item) -> list[int | _Piece]:
        """What must be there before an item."""
        if isinstance(item, _Copy):
            reads = [item.source]
        elif isinstance(item, int):
            reads = [r for a in self.rows[item].args for r in self.made.resolve(a)]
        else:
            reads = [r for a in self.rows[item.row].args for r in self._part(a, item)]
        found: list[int | _Piece] = []
        for b, lo, hi in reads:
            if b in self.cuts:
                found += [q for q in self._pieces(b) if q.lo < hi and lo < q.hi]
            elif self.rows[b].op in ("product", "reduce", "map"):
                found.append(b)
        return found

    def _part(self, a: int, piece: _Piece) -> list[Range]:
        """The range of an operand that a piece reads."""
        if self.rows[a].op == "number":
            return [(a, 0, 1)]
        return self.made.resolve(a, piece.lo, piece.hi)

    def _schedule(self, stage: Stage) -> list[list[_Item]]:
        items: list[_Item] = []
        for i in sorted(self.live):
            row = self.rows[i]
            if row.stage is stage and row.op in ("product", "reduce", "map"):
                items.append(i)
            elif i in self.cuts and row.stage is stage:
                items += self._pieces(i)
        items += [c for c in self.copies if self._stage_of(c) is stage]
        groups: list[list[_Item]] = []
        waits = {id(x) if isinstance(x, _Copy) else x: self._waits(x) for x in items}
        copied: dict[int, list[_Copy]] = {}  # a buffer that copies fill: who reads it waits for them
        for c in self.copies:
            copied.setdefault(c.to.buffer, []).append(c)
        finished: set[int] = set()  # copies, by id

        def ready(item: _Item) -> bool:
            if any(w not in self.done for w in waits[id(item) if isinstance(item, _Copy) else item]):
                return False
            if isinstance(item, int):
                for a in self.rows[item].args:
                    key = tuple(self.made.resolve(a))
                    mine = [c for c in copied.get(self.keys.get(key, -1), []) if self._stage_of(c) is stage]
                    if any(id(c) not in finished for c in mine):
                        return False
            return True

        def finish(item: _Item) -> None:
            if isinstance(item, _Copy):
                finished.add(id(item))
            else:
                self.done.add(item)

        left = list(items)
        while left:
            single = [x for x in left if isinstance(x, int) and ready(x)]
            if single:
                groups.append(list(single))
                for x in single:
                    finish(x)
                left = [x for x in left if x not in single]
                continue
            first = next(x for x in left if ready(x))
            width, group = self._width(first), list[_Item]()
            grown = True
            while grown:
                grown = False
                for x in list(left):
                    if not isinstance(x, int) and self._width(x) == width and ready(x):
                        group.append(x)
                        finish(x)
                        left.remove(x)
                        grown = True
            groups.append(group)
        return groups

    def _width(self, item: _Item) -> int:
        if isinstance(item, _Copy):
            return item.source[2] - item.source[1]
        assert isinstance(item, _Piece)
        return item.hi - item.lo

    def _settle(self, groups: list[tuple[Stage, list[_Item]]]) -> None:
        """Gives a buffer to every piece that another group reads."""
        group_of: dict[int | _Piece, int] = {}
        for k, (_, items) in enumerate(groups):
            for x in items:
                if isinstance(x, _Piece):
                    group_of[x] = k
        buffers: dict[tuple[int, Home], int] = {}
        homes: dict[_Piece, Home] = {}
        for k, (stage, items) in enumerate(groups):
            for x in items:
                if isinstance(x, int):
                    continue  # their operands lie side by side already
                for w in self._waits(x):
                    if not isinstance(w, _Piece) or group_of[w] == k:
                        continue
                    at = self.at.get(w)
                    mine = groups[group_of[w]][0]
                    far = stage is not Stage.LOOP or mine is not Stage.LOOP
                    if at and (not far or self.program.buffers[at[0].buffer][0] != Home.FRAME):
                        continue
                    homes[w] = Home.CHUNK if far else homes.get(w, Home.FRAME)
        for piece, home in homes.items():
            key = (piece.row, home)
            if key not in buffers:
                buffers[key] = self._buffer(home, self.rows[piece.row].width)
            self.at.setdefault(piece, []).insert(0, Operand(buffers[key], piece.lo))

    def _place(self, a: int, stage: Stage) -> Operand:
        """Where the whole of an operand lies side by side."""
        ranges = tuple(self.made.resolve(a))
        if ranges in self.keys:
            return Operand(self.keys[ranges], 0)
        (b, lo, _), *more = ranges
        assert not more, "a demand was forgotten"
        if self.rows[b].op == "state" and stage is not Stage.LOOP:
            return Operand(self.store[b], lo)
        return Operand(self.own[b], lo)

    def _once(self, operands: Iterable[Operand]) -> int:
        return int(
            any(
                o.buffer >= 0 and o.buffer != NOTHING and self.program.buffers[o.buffer][0] == Home.ONCE
                for o in operands
            )
        )

    def _single(self, stage: Stage, i: int) -> None:
        row, p = self.rows[i], self.program
        d = Operand(self.own[i], 0)
        args = [self._place(a, stage) for a in row.args]
        a, b = args[0], args[1] if len(args) > 1 else _NONE
        out = p.instructions[stage]
        once = self._once([a, b])
        if row.op == "product":
            n, k = row.outer, row.inner
            for block, head in row.blocks:
                addend = _NONE if b is _NONE else Operand(b.buffer, b.offset + block * n)
                out.append(
                    (
                        0,
                        0,
                        d.buffer,
                        block * n,
                        a.buffer,
                        a.offset + block * k,
                        *addend,
                        n,
                        k,
                        self._matrix(row, head),
                        0,
                        0,
                        0,
                        once,
                    )
                )
        elif row.op == "reduce":
            p.numbers.append(row.number)
            out.append(
                (
                    2,
                    REDUCTIONS.index(row.reduction),
                    *d,
                    *a,
                    *b,
                    row.inner,
                    row.outer,
                    0,
                    0,
                    0,
                    len(p.numbers) - 1,
                    once,
                )
            )
        else:
            first = len(p.pairs) // 2
            p.pairs += [x for pair in row.pairs for x in pair]
            out.append((3, 0, *d, *a, *_NONE, 0, 0, 0, first, len(row.pairs), 0, once))

    def _matrix(self, row: Row, head: int | None) -> int:
        p = self.program
        if (row.source, head) not in p.matrices:
            p.matrices.append((row.source, head))
            p.matrix_sizes.append((row.outer, row.inner))
        return p.matrices.index((row.source, head))

    def _group(self, stage: Stage, items: list[_Item]) -> None:
        p = self.program
        width = self._width(items[0])
        p.widest = max(p.widest, width)
        last: dict[_Piece, int] = {}
        for k, x in enumerate(items):
            for w in self._waits(x):
                if isinstance(w, _Piece):
                    last[w] = k
        free: list[int] = []
        count = 0
        slot: dict[_Piece, int] = {}
        first, operands = len(p.micros), list[Operand]()
        for k, x in enumerate(items):
            if isinstance(x, _Copy):
                reads, op, to = [self._read(x.source, stage, slot)], "copy", [x.to]
            else:
                row = self.rows[x.row]
                reads = [self._read(self._only(a, x), stage, slot) for a in row.args]
                op, to = row.op, self.at.get(x, [])
            for w in {w for w in self._waits(x) if isinstance(w, _Piece) and w in slot and last[w] == k}:
                free.append(slot.pop(w))
            if not to:
                assert isinstance(x, _Piece)
                if x not in last:
                    continue  # nobody reads it
                if not free:
                    free.append(count)
                    count += 1
                slot[x] = free.pop()
                to = [Operand(-1 - slot[x], 0)]
            reads += [_NONE] * (3 - len(reads))
            p.micros.append((_CODE[op], *to[0], *reads[0], *reads[1], *reads[2]))
            p.micros += [(_CODE["copy"], *more, *to[0], *_NONE, *_NONE) for more in to[1:]]
            operands += [*to, *reads]
        p.slots = max(p.slots, count)
        if len(p.micros) > first:
            p.instructions[stage].append(
                (1, 0, *_NONE, *_NONE, *_NONE, width, 0, 0, first, len(p.micros) - first, 0, self._once(operands))
            )

    def _only(self, a: int, piece: _Piece) -> Range:
        (found,) = self._part(a, piece)
        return found

    def _read(self, source: Range, stage: Stage, slot: dict[_Piece, int]) -> Operand:
        b, lo, hi = source
        if b in self.cuts:
            piece = _Piece(b, lo, hi)
            if piece in slot:
                return Operand(-1 - slot[piece], 0)
            if piece in self.at:
                return self.at[piece][0]
            whole = next(q for q in self._pieces(b) if q.lo <= lo and hi <= q.hi)
            o = self.at[whole][0]
            return Operand(o.buffer, o.offset + lo - whole.lo)
        if self.rows[b].op == "state" and stage is not Stage.LOOP:
            return Operand(self.store[b], lo)
        return Operand(self.own[b], lo)

    def _ends(self, contractions: Sequence[Contraction]) -> None:
        p = self.program
        for s, node in zip(self.graph.states, self.graph.next_states, strict=True):
            state = self.made.of[s]
            ranges = tuple(self.made.resolve(self._row(node)))
            width = self.rows[state].width
            if ranges == ((state, 0, width),):
                where = Operand(self.own[state], 0)
            else:
                where = self._place(self._row(node), Stage.LOOP)
            p.states.append((width, *where, self.store.get(state, -1)))
        for c in contractions:
            gradient = len(p.gradients)
            g = self._place(self._row(c.g), Stage.SINK)
            m = c.width[0]
            count = self.rows[self._row(c.g)].width // m
            if c.a is None:
                p.gradients.append((self.rows[self._row(c.g)].width, 0, 1))
                p.contractions.append((*g, *_NONE, self.rows[self._row(c.g)].width, 0, gradient, 0))
                continue
            a, n = self._place(self._row(c.a), Stage.SINK), c.width[1]
            p.gradients.append((m * count if c.heads else m, n, count if c.heads else 1))
            for b in range(count):
                p.contractions.append(
                    (g.buffer, g.offset + b * m, a.buffer, a.offset + b * n, m, n, gradient, b if c.heads else 0)
                )


def sequence_nodes(staged: Staged) -> list[int]:
    """The nodes that have one row a sequence and are computed, in order."""
    return [i for i, n in staged.graph if staged.scope[i] is Scope.SEQUENCE and n.op != "leaf"]
