"""What native scans of one kind share: their programs, lowered once and remembered with the structure."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from recurra.engine.derive import BackwardProgram, Derived
from recurra.kernels.cpu import native
from recurra.kernels.lower import lower
from recurra.kernels.program import Contraction, Program
from recurra.shapes import extent, numel
from recurra.steps.graph import StepGraph
from recurra.steps.stages import Scope
from recurra.steps.vjp import Backward


@dataclass(frozen=True)
class Lowered:
    """A program, the machine's form of it, and how wide what it writes is."""

    program: Program
    handle: Any
    outputs: tuple[tuple[int, ...], ...]  # a row of each
    tapes: tuple[int, ...]  # numbers from row to row of each

    def addresses(self, tape: Tensor) -> list[int]:
        """Of the tapes, one behind the other in one memory."""
        at, size = tape.data_ptr(), tape.shape[0] * tape.element_size()
        return [at + size * before for before in accumulate(self.tapes[:-1], initial=0)] if self.tapes else []

    @staticmethod
    def of(program: Program, graph: StepGraph, wide: int) -> "Lowered":
        return Lowered(
            program,
            native().Program(**program.tables()),
            tuple(extent(graph.nodes[i].shape) for i in program.outputs),
            tuple(native().stride(wide, width) for _, width in program.tapes),
        )


@dataclass(frozen=True)
class Kind:
    """Scans of one structure that want the same: what is made for all of them, once, and remembered with the structure.

    Nothing here belongs to one call: no cell and no tensor, for weights may change in any way from call to call.
    """

    derived: Derived
    dtype: torch.dtype
    every: bool  # the states of all frames are wanted
    within: bool  # pointwise work is done inside of the loop
    needs: tuple[tuple[bool, ...], ...]  # which inputs, states, states of a reset, constants, weights need a gradient

    @cached_property
    def _parts(self) -> list[slice]:
        ends = list(accumulate(map(len, self.needs), initial=0))
        return [slice(*ab) for ab in zip(ends, ends[1:], strict=False)]

    def split(self, tensors: Sequence[Any]) -> list[Any]:
        """The tensors of a call, kind by kind."""
        return [tensors[part] for part in self._parts]

    @property
    def graph(self) -> StepGraph:
        return self.derived.forward.graph

    @cached_property
    def wide(self) -> int:
        """1 for double precision."""
        return int(self.dtype is torch.float64)

    @cached_property
    def step(self) -> BackwardProgram | None:
        """The step backward; None where nothing needs a gradient."""
        if not any(map(any, self.needs)):
            return None
        inputs, _, _, constants, weights = (frozenset(k for k, need in enumerate(n) if need) for n in self.needs)
        nodes = self.derived.forward.weights
        return self.derived.backward(inputs, constants, frozenset(nodes[k] for k in weights))

    @cached_property
    def keep(self) -> tuple[int, ...]:
        """The nodes that the step backward reads."""
        return () if self.step is None else tuple(i for i in self.step.step.saved if i not in self.graph.inputs)

    def _lowered(self, outputs: tuple[int, ...], keep: tuple[int, ...]) -> Lowered:
        memo, key = self.derived.memo, ("native", self.wide, outputs, keep, self.within)
        if key not in memo:
            program = lower(self.derived.forward.staged, outputs=outputs, keep=keep, within=self.within)
            memo[key] = Lowered.of(program, self.graph, self.wide)
        return memo[key]  # type: ignore[no-any-return]

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        return (self.graph.outputs[0], *(self.graph.next_states if self.every else ()))

    @cached_property
    def forward(self) -> Lowered:
        """The step forward, which keeps nothing."""
        return self._lowered(self.outputs, ())

    @cached_property
    def recording(self) -> Lowered:
        """The step forward, which keeps what the step backward reads."""
        return self._lowered(self.outputs, self.keep)

    @cached_property
    def again(self) -> Lowered:
        """The step forward a second time: its outputs are there."""
        return self._lowered((), self.keep)

    @cached_property
    def backward(self) -> Lowered:
        """The step backward, from what the forward one kept."""
        assert self.step is not None
        memo, key, step = self.step.memo, ("native", self.wide, self.within), self.step.step
        if key not in memo:
            graph, first = step.staged.graph, len(self.graph.outputs)
            program = lower(
                step.staged,
                outputs=[graph.outputs[o] for o in (*step.inputs.values(), *step.constants.values())],
                taped=[first + step.saved.index(i) for i in self.keep],
                contractions=contractions(step),
                within=self.within,
            )
            memo[key] = Lowered.of(program, graph, self.wide)
        return memo[key]  # type: ignore[no-any-return]

    @cached_property
    def saved_rows(self) -> tuple[int, int]:
        """Numbers a row of what the step backward reads, and of the states."""
        size = lambda nodes: sum(numel(self.graph.nodes[i].shape) for i in nodes)
        return size(self.keep), size(self.graph.states)


def contractions(step: Backward) -> list[Contraction]:
    """The weight gradients of a backward step as sums over all rows, in its order."""
    graph, made = step.staged.graph, []
    for grad in step.weights:
        g = graph.outputs[grad.cotangent]
        node = graph.nodes[g]
        width = node.shape[-1].size if node.shape else 1
        if grad.operand is None:
            # A product that nothing else reads is summed as it is made, and never written down.
            alone = node.op == "mul" and not graph.uses[g] and graph.outputs.count(g) == 1
            frames = all(step.staged.scope[a] is Scope.FRAME for a in node.args)
            if alone and frames and all(extent(graph.nodes[a].shape) == extent(node.shape) for a in node.args):
                made.append(Contraction(node.args[0], node.args[1], width=(width, 0)))
            else:
                made.append(Contraction(g, None, width=(width, 0)))
            continue
        a = graph.outputs[grad.operand]
        made.append(Contraction(g, a, grad.contraction == "block_linear", (width, graph.nodes[a].shape[-1].size)))
    return made
