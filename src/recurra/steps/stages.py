"""When each value of a step may be computed, by what it depends on, never by what it looks like."""

from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import cached_property

from recurra.shapes import extent, numel
from recurra.steps.graph import StepGraph
from recurra.steps.ops import Kind


class Stage(Enum):
    """When a value may be computed."""

    WEIGHT = "weight"  # from parameters alone: once a call
    HOIST = "hoist"  # needs no state: for all frames at once, before the loop
    LOOP = "loop"  # a next state needs it: frame by frame
    SINK = "sink"  # needs the state, feeds no next state: for all frames at once, after the loop


class Scope(IntEnum):
    """How many copies of a value there are: one, one a sequence, or one a frame."""

    WEIGHT = 0
    SEQUENCE = 1
    FRAME = 2


class Linearity(Enum):
    """How the next state depends on the state."""

    DIAGONAL = "diagonal"  # a ⊙ s + b, with a and b free of the state
    DENSE = "dense"  # A s + b, with A and b free of the state
    NO = "no"


_FORMS = ("free", "diagonal", "dense", "no")  # how a value depends on states, the worst last


@dataclass(frozen=True)
class Staged:
    """A step graph with the stage of each node, and what follows from the stages.

    `segments` is the LOOP as a list: a reduction over units or a matrix product that depends on an earlier one ends a
    segment, because it needs all units of a row before the next one can begin.
    """

    graph: StepGraph
    stage: tuple[Stage, ...]
    scope: tuple[Scope, ...]

    def nodes(self, stage: Stage) -> list[int]:
        """The nodes of a stage that compute something, in order."""
        return [i for i, node in self.graph if self.stage[i] is stage and node.kind is not Kind.LEAF]

    def count(self, stage: Stage, *kinds: Kind) -> int:
        """How many nodes of these kinds a stage has."""
        return sum(self.graph.nodes[i].kind in kinds for i in self.nodes(stage))

    @cached_property
    def segments(self) -> tuple[tuple[int, ...], ...]:
        """The nodes of the LOOP, segment by segment."""
        at: dict[int, int] = {}
        for i in self.nodes(Stage.LOOP):
            node = self.graph.nodes[i]
            at[i] = 0
            for a in node.args:
                if a not in at:
                    continue
                argument = self.graph.nodes[a].kind
                # A product waits for all units of a computed operand; what reads a reduction waits for the reduction.
                waits = argument is Kind.REDUCTION or (node.kind is Kind.CONTRACTION and a == node.args[0])
                at[i] = max(at[i], at[a] + waits)
        count = max(at.values(), default=-1) + 1
        return tuple(tuple(i for i in at if at[i] == k) for k in range(count))

    @cached_property
    def gemm_depth(self) -> int:
        """How many matrix products of the LOOP wait for one another in each frame."""
        depth = [0] * len(self.graph.nodes)
        for i, node in self.graph:
            product = node.kind is Kind.CONTRACTION and self.stage[i] is Stage.LOOP
            depth[i] = max((depth[a] for a in node.args), default=0) + product
        return max((depth[i] for i in self.graph.next_states), default=0)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The states by position, in groups that feed one another, each after those that it reads."""
        graph = self.graph
        reads = [{k for k, s in enumerate(graph.states) if s in self.below(i)} for i in graph.next_states]
        for _ in reads:  # what is read by way of others
            reads = [r | {k for j in r for k in reads[j]} for r in reads]
        left, order = set(range(len(reads))), list[tuple[int, ...]]()
        while left:
            first = next(k for k in sorted(left) if all(k in reads[j] for j in reads[k] & left))
            group = {first} | {k for k in reads[first] & left if first in reads[k]}
            order.append(tuple(sorted(group)))
            left -= group
        return tuple(order)

    @cached_property
    def linearity(self) -> Linearity:
        """Whether the recurrence is linear in its state, so that it may be run in parallel over time.

        A group of states counts as linear where its factors read other groups alone: those are solved before it.
        """
        worst = "free"
        for group in self.groups:
            form = self._forms({self.graph.states[k] for k in group})
            worst = max([worst, *(form[self.graph.next_states[k]] for k in group)], key=_FORMS.index)
        return {"dense": Linearity.DENSE, "no": Linearity.NO}.get(worst, Linearity.DIAGONAL)

    def _forms(self, states: set[int]) -> list[str]:
        """How each node depends on these states."""
        form: list[str] = []
        for i, node in self.graph:
            of = [form[a] for a in node.args]
            worst = max(of, key=_FORMS.index, default="free")
            if i in states:
                form.append("diagonal")
            elif worst in ("free", "no"):
                form.append(worst)
            elif node.op in ("slice", "cat", "reshape", "expand", "sum", "mean") or node.kind is Kind.CONTRACTION:
                form.append("dense")  # units meet other units
            elif any(f == "diagonal" and self._wide(a) != self._wide(i) for a, f in zip(node.args, of, strict=True)):
                form.append("dense")  # one unit is spread over several
            elif node.op in ("add", "sub", "neg"):
                form.append(worst)
            elif node.op == "mul" or (node.op == "div" and of[1] == "free"):
                form.append(worst if of.count("free") == 1 else "no")
            elif node.op == "where" and of[0] == "free":
                form.append(worst)
            else:
                form.append("no")
        return form

    def _wide(self, node: int) -> tuple[int, ...]:
        return extent(self.graph.nodes[node].shape)

    def below(self, node: int) -> set[int]:
        """A node and everything that it depends on."""
        todo, seen = [node], set[int]()
        while todo:
            i = todo.pop()
            if i not in seen:
                seen.add(i)
                todo.extend(self.graph.nodes[i].args)
        return seen

    def depends_on(self, states: set[int]) -> list[int]:
        """The nodes of the LOOP that depend on these states, in order."""
        found = set(states)
        for i, node in self.graph:
            if any(a in found for a in node.args):
                found.add(i)
        return [i for i in self.nodes(Stage.LOOP) if i in found]

    def widths(self, nodes: list[int]) -> int:
        """How many numbers these values hold for one sequence."""
        return sum(numel(self.graph.nodes[i].shape) for i in nodes)


def stages(graph: StepGraph) -> Staged:
    """Sort the nodes of a graph into stages."""
    scope: list[Scope] = []
    on_state: list[bool] = []
    for i, node in graph:
        if i in graph.states or i in graph.inputs:
            scope.append(Scope.FRAME)
        elif i in graph.constants:
            scope.append(Scope.SEQUENCE)
        else:
            scope.append(max((scope[a] for a in node.args), default=Scope.WEIGHT))
        on_state.append(i in graph.states or any(on_state[a] for a in node.args))
    feeds, todo = set[int](), list(graph.next_states)
    while todo:
        i = todo.pop()
        if i not in feeds:
            feeds.add(i)
            todo.extend(graph.nodes[i].args)

    def stage(i: int) -> Stage:
        if scope[i] is Scope.WEIGHT:
            return Stage.WEIGHT
        if not on_state[i]:
            return Stage.HOIST
        return Stage.LOOP if i in feeds or i in graph.states else Stage.SINK

    return Staged(graph, tuple(stage(i) for i, _ in graph), tuple(scope))
