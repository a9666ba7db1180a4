"""A staged graph made ready to run on packed frames, in torch operations.

Values live in one list, a place a node. HOIST and SINK nodes are made for all frames of a piece of time at once; the
LOOP is a flat list of calls. One program runs a forward step from the first frame to the last, where sequences leave
when they end, and a backward step from the last to the first, where they join.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from recurra.engine.parallel import Between, Grid, like, solve_loop, tensor_of
from recurra.shapes import extent
from recurra.steps.graph import Ref, StepGraph
from recurra.steps.ops import OPS
from recurra.steps.stages import Scope, Stage, Staged

Call = tuple[Callable[..., Any], tuple[int, ...], int, Any]  # function, places it reads, place it writes, attributes


@dataclass(frozen=True)
class Piece:
    """What one run over consecutive frames leaves behind."""

    outputs: tuple[Tensor, ...]  # each (N, ...)
    state: tuple[Tensor, ...]  # each (B, ...)
    kept: dict[int, Tensor]  # the nodes asked for: (N, ...), or (B, ...) where there is one a sequence


@dataclass(frozen=True)
class Program:
    """Runs a staged graph."""

    staged: Staged

    @property
    def graph(self) -> StepGraph:
        """The step."""
        return self.staged.graph

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """The weight nodes that frames read: what a run must be given."""
        scope = self.staged.scope
        read = {a for i, n in self.graph if scope[i] is not Scope.WEIGHT for a in n.args}
        read |= {*self.graph.outputs, *self.graph.next_states}
        return tuple(sorted(a for a in read if scope[a] is Scope.WEIGHT and self.graph.nodes[a].op != "const"))

    @cached_property
    def _calls(self) -> dict[Stage | Scope, tuple[Call, ...]]:
        """The calls of each stage; what HOIST computes once a sequence is under ``Scope.SEQUENCE``."""
        graph, scope = self.graph, self.staged.scope

        def calls(stage: Stage, *scopes: Scope) -> tuple[Call, ...]:
            rows = [(graph.nodes[i], i) for i in self.staged.nodes(stage) if scope[i] in scopes]
            return tuple((OPS[n.op].torch, n.args, i, n.attrs) for n, i in rows)  # type: ignore[misc]

        return {
            Scope.SEQUENCE: calls(Stage.HOIST, Scope.SEQUENCE),
            Stage.HOIST: calls(Stage.HOIST, Scope.FRAME),
            Stage.LOOP: calls(Stage.LOOP, Scope.FRAME),
            Stage.SINK: calls(Stage.SINK, Scope.FRAME),
        }

    @cached_property
    def _read_by_loop(self) -> tuple[int, ...]:
        """What the loop reads frame by frame from outside of it."""
        graph, stage = self.graph, self.staged.stage
        read = {a for i in self.staged.nodes(Stage.LOOP) for a in graph.nodes[i].args} | set(graph.next_states)
        return tuple(sorted(a for a in read if stage[a] is Stage.HOIST))

    @cached_property
    def _read_after_loop(self) -> frozenset[int]:
        """What the loop computes that is needed of every frame when it is over."""
        graph, stage = self.graph, self.staged.stage
        read = {a for i in self.staged.nodes(Stage.SINK) for a in graph.nodes[i].args} | set(graph.outputs)
        return frozenset(a for a in read if stage[a] is Stage.LOOP)

    def run(
        self,
        *,
        inputs: Sequence[Tensor],
        state: Sequence[Tensor],
        constants: Sequence[Tensor],
        weights: Sequence[Tensor],
        sizes: Sequence[int],
        row: Tensor | None = None,
        keep: Iterable[int] = (),
        every: bool = False,
        between: Between | None = None,
        backwards: bool = False,
        parallel: bool = False,
    ) -> Piece:
        """Run over consecutive frames; there is at least one.

        Args:
            inputs: each ``(N, ...)``, N the sum of `sizes`.
            state: each ``(B, ...)``, in packed order.
            constants: each ``(B, ...)``, in packed order.
            weights: in the order of :attr:`weights`.
            sizes: how many rows run in each frame, never growing.
            row: ``(N,)`` the row of each frame; needed where there are constants.
            keep: nodes to hand back.
            every: hand out the next states of all frames too, behind the outputs.
            between: what happens to the states between frames.
            backwards: go through the frames from the last to the first; rows then join instead of leaving.
            parallel: solve the LOOP, which is linear in its state, for all frames at once.
        """
        graph, scope, stage, N = self.graph, self.staged.scope, self.staged.stage, sum(sizes)
        dtype = (*inputs, *state)[0].dtype
        values: list[Any] = [graph.number(i, dtype) if node.op == "const" else None for i, node in graph]
        for places, given in ((self.weights, weights), (graph.inputs, inputs), (graph.constants, constants)):
            for i, v in zip(places, given, strict=True):
                values[i] = v
        spread: dict[int, Tensor] = {}

        def per_frame(i: int) -> Any:
            """A value with one row a frame, where it has one a sequence."""
            if scope[i] is not Scope.SEQUENCE:
                return values[i]
            if i not in spread:
                assert row is not None
                spread[i] = values[i].index_select(0, row)
            return spread[i]

        def at_once(calls: Iterable[Call]) -> None:
            for function, args, out, attrs in calls:
                values[out] = function(*map(per_frame, args), attrs=attrs)

        for function, args, out, attrs in self._calls[Scope.SEQUENCE]:
            values[out] = function(*[values[a] for a in args], attrs=attrs)
        at_once(self._calls[Stage.HOIST])
        wanted, ends = set(keep), (*graph.outputs, *(graph.next_states if every else ()))
        record = sorted(self._read_after_loop | {i for i in (*wanted, *ends) if stage[i] is Stage.LOOP})
        between = between or Between()
        if parallel:
            last = self._solved(values, state, sizes, between, per_frame, backwards=backwards)
        else:
            last, tapes = self._loop(values, list(state), sizes, record, between, backwards=backwards)
            for i, tape in zip(record, tapes, strict=True):
                values[i] = torch.cat(tape[::-1] if backwards else tape)
        at_once(self._calls[Stage.SINK])
        return Piece(
            tuple(self._rows(i, per_frame(i), N) for i in ends),
            tuple(last),
            {i: values[i] if scope[i] is Scope.SEQUENCE else self._rows(i, values[i], N) for i in wanted},
        )

    def _loop(
        self,
        values: list[Any],
        given: list[Tensor],
        sizes: Sequence[int],
        record: Sequence[int],
        between: Between,
        *,
        backwards: bool,
    ) -> tuple[list[Tensor], list[list[Tensor]]]:
        graph, scope = self.graph, self.staged.scope
        added = [v.split(list(sizes)) for v in between.added]
        reads = [
            (i, values[i].split(list(sizes)) if scope[i] is Scope.FRAME else [values[i][:n] for n in sizes])
            for i in self._read_by_loop
        ]
        tapes: list[list[Tensor]] = [[] for _ in record]
        taped = list(zip(record, tapes, strict=True))
        calls, env = self._calls[Stage.LOOP], list(values)
        rows = 0 if backwards else (given[0].shape[0] if given else sizes[0])
        state = [s[:0] for s in given] if backwards else given
        left: list[list[Tensor]] = [[] for _ in given]
        for t in reversed(range(len(sizes))) if backwards else range(len(sizes)):
            n = sizes[t]
            if n < rows:  # sequences end
                for ended, s in zip(left, state, strict=True):
                    ended.append(s[n:])
                state = [s[:n] for s in state]
            elif n > rows:  # backwards, they begin with their end
                state = [torch.cat([s, g[rows:n]]) if rows else g[:n] for s, g in zip(state, given, strict=True)]
            rows = n
            begins = between.begins[t] if between.begins else None
            if begins is not None and not backwards:
                state = [torch.where(like(begins, s), i[:n], s) for s, i in zip(state, between.initial, strict=True)]
            if added:
                state = [s + pieces[t] for s, pieces in zip(state, added, strict=True)]
            for i, s in zip(graph.states, state, strict=True):
                env[i] = s
            for i, pieces in reads:
                env[i] = pieces[t]
            for function, args, out, attrs in calls:
                env[out] = function(*[env[a] for a in args], attrs=attrs)
            for i, tape in taped:
                tape.append(env[i])
            state = [self._rows(i, env[i], n) for i in graph.next_states]
            if begins is not None and backwards:
                for caught, s in zip(between.caught, state, strict=True):
                    caught[:n] += torch.where(like(begins, s), s, 0.0)
                state = [torch.where(like(begins, s), 0.0, s) for s in state]
        if backwards:
            left = [[g[rows:]] for g in given]
        last = [torch.cat([s, *ended[::-1]]) if ended else s for s, ended in zip(state, left, strict=True)]
        return last, tapes

    def _solved(
        self,
        values: list[Any],
        given: Sequence[Tensor],
        sizes: Sequence[int],
        between: Between,
        known: Callable[[int], Any],
        *,
        backwards: bool,
    ) -> list[Tensor]:
        """The LOOP for all frames at once: fills `values`, returns the last states."""
        left = list(self._calls[Stage.LOOP])

        def compute(waiting: set[int]) -> None:
            nonlocal left
            for function, args, out, attrs in left:
                if out not in waiting:
                    values[out] = function(*map(known, args), attrs=attrs)
            left = [call for call in left if call[2] in waiting]

        grid = Grid(sizes, given[0].shape[0], backwards)
        rows = lambda i, value: self._rows(i, tensor_of(value).to(given[0]), grid.count)
        return solve_loop(self.staged, grid, values, known, compute, rows, given, between)

    def _rows(self, node: int, value: Any, rows: int) -> Tensor:
        """A value with its leading axis, also where it is the same for all rows."""
        size = extent(self.graph.nodes[node].shape)
        full: Tensor = value if value.dim() > len(size) else value.expand(rows, *size)
        return full


def evaluate_weights(
    graph: StepGraph, wanted: Sequence[int], leaves: Callable[[Any], Tensor], like: Tensor
) -> list[Tensor]:
    """The WEIGHT stage: torch functions of parameters, in torch's own autograd.

    Args:
        graph: the step.
        wanted: the nodes whose values are needed.
        leaves: gives the tensor of a leaf by its name.
        like: what tensors made from nothing take their dtype and device from.
    """
    values = _Weights(graph, leaves, like)
    return [values[i] for i in wanted]


class _Weights(dict[int, Any]):
    """The values of WEIGHT nodes, each made when it is first asked for.

    Functions that call each other would do, but they are a cycle, and keep all these tensors until a collection.
    """

    def __init__(self, graph: StepGraph, leaves: Callable[[Any], Tensor], like: Tensor):
        super().__init__()
        self.graph, self.leaves, self.like = graph, leaves, like

    def __missing__(self, i: int) -> Any:
        node = self.graph.nodes[i]
        if node.op == "leaf":
            made: Any = self.leaves(node.attrs[1])
        elif node.op == "full":
            made = torch.full(extent(node.shape), node.attrs, dtype=self.like.dtype, device=self.like.device)
        elif node.op == "item":
            made = self[node.args[0]][node.attrs]
        elif node.op == "call":
            function, args, kwargs = node.attrs
            made = function(*map(self._filled, args), **{k: self._filled(v) for k, v in kwargs})
        elif node.op == "const":
            made = self.graph.number(i, self.like.dtype)
        else:  # a primitive that a rewrite moved here
            made = OPS[node.op].torch(*[self[a] for a in node.args], attrs=node.attrs)  # type: ignore[misc]
        self[i] = made
        return made

    def _filled(self, argument: Any) -> Any:
        if isinstance(argument, Ref):
            return self[argument.node]
        return type(argument)(map(self._filled, argument)) if type(argument) in (tuple, list) else argument
