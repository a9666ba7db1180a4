"""The LOOP of a recurrence that is linear in its state, solved in about 2 √T steps instead of T.

Where the next state is ``A s + b``, with A and b known for all frames and each unit by itself, two steps are one of the
same kind: ``A₂(A₁ s + b₁) + b₂``. Time is cut into chunks; all chunks run side by side from a state of zero, beside the
products of their A; then one short loop carries the state from chunk to chunk (Blelloch, 1990, section 1.4, with two
levels instead of log T: fewer passes over memory). Several leaves of a state that feed one another, such as the real
and imaginary part of a number, are small matrices A for each unit.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from recurra.steps.graph import StepGraph
from recurra.steps.stages import Staged

Number = Tensor | float
Matrix = list[list[Tensor | None]]  # [to][from]; None is zero


@dataclass(frozen=True)
class Between:
    """What happens to the states between frames.

    Forwards, rows that begin anew get a state before the frame; backwards, the gradients of states that were given back
    are added before the frame, and after it what flows into a row's beginning is caught and goes no further.
    """

    begins: Sequence[Tensor | None] = ()  # for each frame (n,) bool, or None where no row begins; empty: none ever does
    initial: tuple[Tensor, ...] = ()  # forwards: each (B, ...)
    added: tuple[Tensor, ...] = ()  # backwards: each (N, ...)
    caught: tuple[Tensor, ...] = ()  # backwards: each (B, ...), to which what is caught is added


@dataclass(frozen=True)
class Grid:
    """Packed frames, of which fewer and fewer rows run, as a rectangle in the order of processing.

    Args:
        sizes: how many rows run in each frame, never growing.
        B: rows of the rectangle.
        backwards: the last frame is processed first.
    """

    sizes: Sequence[int]
    B: int
    backwards: bool

    @property
    def count(self) -> int:
        """N, the number of packed frames."""
        return sum(self.sizes)

    @property
    def ragged(self) -> bool:
        """Whether some rows do not run in all frames."""
        return self.sizes[-1] != self.B

    def _index(self, device: torch.device) -> Tensor:
        frames = torch.arange(len(self.sizes), device=device).repeat_interleave(
            torch.tensor(self.sizes, device=device), output_size=sum(self.sizes)
        )
        starts = torch.tensor([0, *self.sizes[:-1]], device=device).cumsum(0)
        return frames * self.B + torch.arange(len(frames), device=device) - starts[frames]

    def spread(self, packed: Tensor, fill: float) -> Tensor:
        """``(N, ...)`` to ``(T, B, ...)``, `fill` where no row runs."""
        T, shape = len(self.sizes), packed.shape[1:]
        if not self.ragged:
            grid = packed.reshape(T, self.B, *shape)
        else:
            grid = packed.new_full((T * self.B, *shape), fill)
            grid = grid.index_copy(0, self._index(packed.device), packed).reshape(T, self.B, *shape)
        return grid.flip(0) if self.backwards else grid

    def pack(self, grid: Tensor) -> Tensor:
        """``(T, B, ...)`` to ``(N, ...)``."""
        flat = (grid.flip(0) if self.backwards else grid).reshape(len(self.sizes) * self.B, *grid.shape[2:])
        return flat if not self.ragged else flat.index_select(0, self._index(grid.device))


def solve_loop(
    staged: Staged,
    grid: Grid,
    values: list[Any],
    known: Callable[[int], Any],
    compute: Callable[[set[int]], None],
    rows: Callable[[int, Any], Tensor],
    given: Sequence[Tensor],
    between: Between,
) -> list[Tensor]:
    """Solve the LOOP group by group of states.

    Args:
        staged: the step, which is linear in its state unit by unit.
        grid: where its frames lie.
        values: by node; states before each frame ``(N, ...)`` are put in, and what `compute` adds.
        known: a node's value for all frames.
        compute: compute each node of the LOOP but these.
        rows: ``(node, value)``: a value of that node's shape as ``(N, ...)``.
        given: the states before the first frame that is processed, each ``(B, ...)``.
        between: what happens to states between frames.

    Returns:
        The states after the last frame that is processed, each ``(B, ...)``.
    """
    graph, last = staged.graph, list(given)
    begins = None
    if any(b is not None for b in between.begins):
        none = [given[0].new_zeros(n, dtype=torch.bool) for n in grid.sizes]
        masks = [n if b is None else b for b, n in zip(between.begins, none, strict=True)]
        begins = grid.spread(torch.cat(masks), fill=False)
    unsolved = set(graph.states)
    for group in staged.groups:
        compute(set(staged.depends_on(unsolved)))
        unsolved -= {graph.states[k] for k in group}
        A, b = _recurrence(staged, group, grid, known, rows)
        start = [given[k] for k in group]
        added = [grid.spread(between.added[k], 0.0) for k in group] if between.added else None
        if added is not None:
            b = [_plus(row, added, v) for row, v in zip(A, b, strict=True)]
        if begins is not None:
            # A row that begins anew comes from the initial state, or, backwards, gives nothing to the frame before.
            anew = [torch.zeros_like(v) for v in b]
            if not grid.backwards:
                anew = [_plus(row, [between.initial[k] for k in group], v) for row, v in zip(A, b, strict=True)]
            b = [torch.where(like(begins, v), a, v) for a, v in zip(anew, b, strict=True)]
            A = [[None if f is None else torch.where(like(begins, f), 0.0, f) for f in row] for row in A]
        for place, (k, after) in enumerate(zip(group, solve(A, b, start), strict=True)):
            before = torch.cat([start[place][None], after[:-1]])
            if begins is not None and not grid.backwards:
                before = torch.where(like(begins, before), between.initial[k], before)
            if added is not None:
                before = before + added[place]
            values[graph.states[k]] = grid.pack(before)
            last[k] = after[-1]
    compute(set())
    if begins is not None and grid.backwards:
        for caught, i in zip(between.caught, graph.next_states, strict=True):
            flows = grid.spread(rows(i, known(i)), 0.0)
            caught += torch.where(like(begins, flows), flows, 0.0).sum(0)
    return last


def _recurrence(
    staged: Staged,
    group: Sequence[int],
    grid: Grid,
    known: Callable[[int], Any],
    rows: Callable[[int, Any], Tensor],
) -> tuple[Matrix, list[Tensor]]:
    """A and b of a group of states, on the grid; where no row runs, the state stays as it is."""
    graph = staged.graph
    unknown = {graph.states[k]: place for place, k in enumerate(group)}
    needed = set[int]().union(*(staged.below(graph.next_states[k]) for k in group))
    forms = linear_form(graph, [i for i in staged.depends_on(set(unknown)) if i in needed], unknown, known)
    A: Matrix = []
    b: list[Tensor] = []
    for place, k in enumerate(group):
        i = graph.next_states[k]
        factors, rest = forms[i] if i in forms else ({}, known(i))
        if grid.ragged:
            factors = {place: 0.0, **factors}
        spread = [
            grid.spread(rows(i, factors[j]), float(j == place)) if j in factors else None for j in range(len(group))
        ]
        A.append(spread)
        b.append(grid.spread(rows(i, rest), 0.0))
    return A, b


def linear_form(
    graph: StepGraph, nodes: Sequence[int], unknown: dict[int, int], known: Any
) -> dict[int, tuple[dict[int, Number], Number]]:
    """What `nodes` are as functions of the unknown states: for each a factor a state, and a rest.

    Args:
        graph: the step.
        nodes: those that depend on an unknown state, in order.
        unknown: node of a state -> its number in the result.
        known: gives the value of any other node.
    """
    forms: dict[int, tuple[dict[int, Number], Number]] = {leaf: ({k: 1.0}, 0.0) for leaf, k in unknown.items()}

    def form(i: int) -> tuple[dict[int, Number], Number]:
        return forms[i] if i in forms else ({}, known(i))

    def each(i: int, change: Any) -> tuple[dict[int, Number], Number]:
        factors, rest = form(i)
        return {k: change(f) for k, f in factors.items()}, change(rest)

    def both(a: int, b: int, change: Any) -> tuple[dict[int, Number], Number]:
        (fa, ra), (fb, rb) = form(a), form(b)
        return {k: change(fa.get(k, 0.0), fb.get(k, 0.0)) for k in {**fa, **fb}}, change(ra, rb)

    for i in nodes:
        node = graph.nodes[i]
        args = node.args
        if node.op == "add":
            forms[i] = both(args[0], args[1], lambda x, y: x + y)
        elif node.op == "sub":
            forms[i] = both(args[0], args[1], lambda x, y: x - y)
        elif node.op == "neg":
            forms[i] = each(args[0], lambda x: -x)
        elif node.op == "mul":
            state, factor = args if args[0] in forms else args[::-1]
            by = known(factor)
            forms[i] = each(state, lambda x, by=by: x * by)
        elif node.op == "div":
            by = known(args[1])
            forms[i] = each(args[0], lambda x, by=by: x / by)
        elif node.op == "linear":  # to a product of what is known, the state is added
            factors, rest = form(args[2])
            forms[i] = factors, linear(known(args[0]), known(args[1])) + rest
        else:
            assert node.op == "where", f"{node.op} of a state is not linear"
            condition = known(args[0])
            forms[i] = both(args[1], args[2], lambda x, y, of=condition: torch.where(of, tensor_of(x), tensor_of(y)))
    return forms


def solve(factors: Matrix, rest: list[Tensor], start: Sequence[Tensor]) -> list[Tensor]:
    """The states after each frame of ``s_t = A_t s_{t-1} + b_t``.

    Args:
        factors: A, K by K tensors ``(T, B, ...)``.
        rest: b, each ``(T, B, ...)``. start: the states before the first frame, each ``(B, ...)``.

    Returns:
        K tensors ``(T, B, ...)``.
    """
    K, T = range(len(rest)), rest[0].shape[0]
    length = math.isqrt(T - 1) + 1
    chunks = -(-T // length)
    extra = chunks * length - T

    def cut(v: Tensor, fill: float) -> Tensor:
        """``(T, B, ...)`` to ``(length, chunks, B, ...)``: frame by frame of all chunks."""
        if extra:
            v = torch.cat([v, v.new_full((extra, *v.shape[1:]), fill)])
        return v.reshape(chunks, length, *v.shape[1:]).transpose(0, 1)

    A = [[None if f is None else cut(f, float(i == j)).contiguous() for j, f in enumerate(factors[i])] for i in K]
    b = [cut(v, 0.0).contiguous() for v in rest]
    # Side by side: what each chunk makes of a state of zero, and what it multiplies any other by.
    local: list[list[Tensor]] = [[v[0] for v in b]]
    product: list[Matrix] = [[[None if f is None else f[0] for f in A[i]] for i in K]]
    for t in range(1, length):
        now: Matrix = [[None if f is None else f[t] for f in A[i]] for i in K]
        local.append([_sum([_times(now[i][j], local[-1][j]) for j in K], b[i][t]) for i in K])
        product.append([[_add(_times(now[i][m], product[-1][m][j]) for m in K) for j in K] for i in K])
    carried: list[list[Tensor]] = [list(start)]
    for c in range(chunks - 1):
        ends = [[None if f is None else f[c] for f in product[-1][i]] for i in K]
        carried.append([_sum([_times(ends[i][j], carried[-1][j]) for j in K], local[-1][i][c]) for i in K])
    before = [torch.stack([states[j] for states in carried]) for j in K]  # (chunks, B, ...)
    found = []
    for i in K:
        after = torch.stack([row[i] for row in local], 1)  # (chunks, length, B, ...)
        for j in K:
            if all(p[i][j] is not None for p in product):
                by = torch.stack([p[i][j] for p in product], 1)  # type: ignore[misc]
                after = torch.addcmul(after, by, before[j].unsqueeze(1))
            else:
                for t, p in enumerate(product):
                    if p[i][j] is not None:
                        after[:, t] += p[i][j] * before[j]  # type: ignore[operator]
        found.append(after.reshape(chunks * length, *after.shape[2:])[:T])
    return found


def tensor_of(number: Number) -> Tensor:
    """A number in double precision: torch would take its default dtype, and round."""
    return number if isinstance(number, Tensor) else torch.tensor(number, dtype=torch.float64)


def like(mask: Tensor, value: Tensor) -> Tensor:
    """A mask over the leading axes, so that it broadcasts to a value."""
    return mask.reshape(*mask.shape, *[1] * (value.dim() - mask.dim()))


def _plus(factors: Sequence[Tensor | None], states: Sequence[Tensor], rest: Tensor) -> Tensor:
    """``A s + b`` of one row of A."""
    return _sum([_times(f, s) for f, s in zip(factors, states, strict=True)], rest)


def _times(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a * b


def _add(parts: Any) -> Tensor | None:
    there = [p for p in parts if p is not None]
    return sum(there[1:], there[0]) if there else None


def _sum(parts: Sequence[Tensor | None], rest: Tensor) -> Tensor:
    return sum((p for p in parts if p is not None), rest)
