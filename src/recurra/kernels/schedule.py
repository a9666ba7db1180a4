"""When each row of a step is computed: pointwise work in pieces of one width, gathered into groups.

A group runs strip by strip over its rows, so that what only the group reads stays in a first-level cache. Products,
reductions and maps need all numbers of a row and stand between groups.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

from recurra.kernels.program import OPERATIONS, Operand
from recurra.kernels.rows import Range, Rows
from recurra.steps.stages import Stage

WHOLE = frozenset(("product", "reduce", "map"))  # operations that need, and make, whole rows
POINTWISE = frozenset(OPERATIONS)


class Piece(NamedTuple):
    """A range of a pointwise row, computed at once."""

    row: int
    lo: int
    hi: int


@dataclass(frozen=True, eq=False)
class Copy:
    """A range of a row, copied to where it is needed as well."""

    source: Range
    to: Operand
    stage: Stage


Item = Piece | Copy | int  # int: a row of WHOLE


def live(made: Rows, ends: Iterable[int]) -> set[int]:
    """The rows that these rows need, themselves included."""
    todo, seen = list(ends), set[int]()
    while todo:
        i = todo.pop()
        if i not in seen:
            seen.add(i)
            todo += made.reads(i)
    return seen


def inline(made: Rows, alive: set[int], ends: set[int], states: set[int]) -> None:
    """Moves pointwise work of HOIST and SINK into the loop, where nothing but work of that kind is near it.

    Args:
        ends: rows whose value of every frame is wanted. states: rows that are a next state.
    """
    rows = made.rows
    readers: dict[int, list[int]] = {i: [] for i in alive}
    for i in alive:
        for a in made.reads(i):
            readers[a].append(i)
    light = lambda i: rows[i].op in POINTWISE or rows[i].op == "view"
    for i in sorted(alive, reverse=True):
        free = rows[i].stage is Stage.HOIST and light(i) and i not in ends and (readers[i] or i in states)
        if free and all(rows[r].stage is Stage.LOOP and light(r) for r in readers[i]):
            rows[i] = replace(rows[i], stage=Stage.LOOP)
    for i in sorted(alive):
        if rows[i].stage is Stage.SINK and light(i) and all(rows[r].stage is not Stage.SINK for r in made.reads(i)):
            rows[i] = replace(rows[i], stage=Stage.LOOP)


def cut(made: Rows, alive: set[int], wanted: Iterable[Sequence[Range]]) -> dict[int, list[int]]:
    """Where pointwise rows are cut, so that every piece reads whole pieces and `wanted` ranges are made of such."""
    rows = made.rows
    cuts = {i: {0, rows[i].width} for i in alive if rows[i].op in POINTWISE}
    for ranges in wanted:
        for b, lo, hi in ranges:
            if b in cuts:
                cuts[b] |= {lo, hi}
    links = []  # a row, the position there, a row that it reads, the position there, how many numbers
    for i in cuts:
        for a in rows[i].args:
            at = 0
            for b, lo, hi in made.resolve(a) if rows[a].op != "number" else ():
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


@dataclass
class Schedule:
    """The order of everything that is computed.

    Attributes:
        made: the rows. alive: those that are needed. cuts: of the pointwise ones.
        copies: what must be copied. filled: for ranges that copies put side by side, these copies.
    """

    made: Rows
    alive: set[int]
    cuts: dict[int, list[int]]
    copies: list[Copy]
    filled: dict[tuple[Range, ...], list[Copy]]
    _done: set[Item] = field(default_factory=set)

    def pieces(self, i: int) -> list[Piece]:
        """The pieces of a pointwise row."""
        return [Piece(i, lo, hi) for lo, hi in pairwise(self.cuts[i])]

    def width(self, item: Piece | Copy) -> int:
        """How many numbers it has."""
        return item.source[2] - item.source[1] if isinstance(item, Copy) else item.hi - item.lo

    def reads(self, item: Item) -> list[Range]:
        """The ranges of rows that are no views that an item reads, operand by operand."""
        if isinstance(item, Copy):
            return [item.source]
        if isinstance(item, int):
            return [r for a in self.made.rows[item].args for r in self.made.resolve(a)]
        found = []
        for a in self.made.rows[item.row].args:
            number = self.made.rows[a].op == "number"
            (part,) = [(a, 0, 1)] if number else self.made.resolve(a, item.lo, item.hi)
            found.append(part)
        return found

    def waits(self, item: Item) -> list[Item]:
        """What must be there before an item."""
        found: list[Item] = []
        for b, lo, hi in self.reads(item):
            if b in self.cuts:
                found += [p for p in self.pieces(b) if p.lo < hi and lo < p.hi]
            elif self.made.rows[b].op in WHOLE:
                found.append(b)
        if isinstance(item, int):
            for a in self.made.rows[item].args:
                found += self.filled.get(tuple(self.made.resolve(a)), [])
        return found

    def stage(self, item: Item) -> Stage:
        """When an item is computed."""
        if isinstance(item, Copy):
            return item.stage
        return self.made.rows[item if isinstance(item, int) else item.row].stage

    def groups(self, stage: Stage) -> list[list[Item]]:
        """The items of a stage in order: lists of whole rows, and of pieces and copies of one width.

        Stages must be asked for in the order in which they run.
        """
        left: list[Item] = []
        for i in sorted(self.alive):
            if self.made.rows[i].stage is stage:
                left += [i] if self.made.rows[i].op in WHOLE else self.pieces(i) if i in self.cuts else []
        left += [c for c in self.copies if c.stage is stage]
        waits = {x: self.waits(x) for x in left}
        ready = lambda x: all(w in self._done for w in waits[x])
        groups: list[list[Item]] = []
        while left:
            group: list[Item] = [x for x in left if isinstance(x, int) and ready(x)]
            self._done |= set(group)
            if not group:
                light = [x for x in left if not isinstance(x, int)]
                width = self.width(next(x for x in light if ready(x)))
                grown = True
                while grown:
                    grown = False
                    for x in light:
                        if x not in self._done and self.width(x) == width and ready(x):
                            group.append(x)
                            self._done.add(x)
                            grown = True
            groups.append(group)
            left = [x for x in left if x not in self._done]
        return groups
