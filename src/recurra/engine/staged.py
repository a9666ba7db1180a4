"""The stages of a step in torch operations, with the derived backward as one autograd function.

HOIST and SINK run for all frames at once, forward and backward; each weight gradient is one contraction over them.
Padding is dropped before and restored after: a finished sequence costs nothing. Half precision is computed in float32.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from recurra.engine.derive import BackwardProgram, Derived
from recurra.engine.frames import Frames
from recurra.engine.parallel import Between
from recurra.engine.program import Piece, evaluate_weights
from recurra.engine.request import Leaves, Request, Result
from recurra.shapes import extent, numel
from recurra.steps.vjp import WeightGrad


@dataclass(frozen=True)
class _Job:
    """One scan on packed frames; its tensors travel apart, in the order of `counts`."""

    derived: Derived
    frames: Frames
    resets: list[Tensor | None]
    return_states: bool
    save: str | int
    parallel: bool  # the LOOP is solved for all frames of a piece at once
    counts: tuple[int, ...]  # how many tensors are inputs, states, states of a reset, constants, weights

    def split(self, tensors: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The tensors, kind by kind."""
        parts, start = [], 0
        for count in self.counts:
            parts.append(tuple(tensors[start : start + count]))
            start += count
        return parts

    @cached_property
    def row(self) -> Tensor | None:
        """The row of each frame, where constants need it."""
        return self.frames.row if self.derived.forward.graph.constants else None

    def cuts(self, saved_width: int, state_width: int, itemsize: int) -> list[tuple[int, int]]:
        """The pieces of time that run, and whose values are kept or computed again, together.

        Where all is kept, a piece is what stays in a core's cache while HOIST and SINK pass over it.
        """
        sizes = self.frames.sizes
        T, B = len(sizes), max(sizes)
        if self.save == "all" and self.parallel:
            length = T
        elif self.save == "all":
            length = max(1, _CACHED_BYTES // (B * self._widest * itemsize))
        elif self.save == "sqrt":
            length = math.isqrt(T - 1) + 1
        else:
            need = lambda n: (n * saved_width + math.ceil(T / n) * state_width) * B * itemsize
            length = next((n for n in range(T, 0, -1) if need(n) <= int(self.save)), math.isqrt(T - 1) + 1)
        return [(t, min(t + length, T)) for t in range(0, T, length)]

    @cached_property
    def _widest(self) -> int:
        return max(numel(node.shape) for i, node in self.derived.forward.graph if self.derived.forward.staged.scope[i])

    def forward(
        self,
        tensors: Sequence[Tensor],
        cut: tuple[int, int],
        state: Leaves,
        keep: Sequence[int],
        *,
        every: bool = False,
    ) -> Piece:
        """Run one piece of time."""
        x, _, initial, constants, weights = self.split(tensors)
        sizes, (first, last) = self.frames.sizes, cut
        start, stop = sum(sizes[:first]), sum(sizes[:last])
        return self.derived.forward.run(
            inputs=[v[start:stop] for v in x],
            state=state,
            constants=constants,
            weights=weights,
            sizes=sizes[first:last],
            row=None if self.row is None else self.row[start:stop],
            keep=keep,
            every=every,
            between=Between(self.resets[first:last], initial) if initial else None,
            parallel=self.parallel,
        )


_CACHED_BYTES = 1 << 20  # of the widest value of a piece: several of them share a core's second-level cache


class _Pieces:
    """A forward run, piece by piece."""

    def __init__(self, job: _Job, tensors: Sequence[Tensor], keep: Sequence[int], cuts: Sequence[tuple[int, int]]):
        state = job.split(tensors)[1]
        self.starts: list[Leaves] = []  # the state before each piece
        self.kept: list[dict[int, Tensor]] = []
        parts: list[list[Tensor]] = [[] for _ in range(1 + len(state) * job.return_states)]
        for cut in cuts:
            self.starts.append(state)
            piece = job.forward(tensors, cut, state, keep, every=job.return_states)
            for part, value in zip(parts, piece.outputs, strict=True):
                part.append(value)
            self.kept.append(piece.kept)
            state = piece.state
        y, *states = (p[0] if len(p) == 1 else torch.cat(p) for p in parts)
        self.outputs = (y, *state, *states)


class _Scan(torch.autograd.Function):
    """Packed frames in, packed outputs and last states out."""

    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: Tensor) -> Any:
        step = _backward_for(job, job.split(ctx.needs_input_grad[1:]))
        keep = () if step is None else (*step.step.saved, *step.step.saved_once)
        graph = job.derived.forward.graph
        saved, states = (sum(numel(graph.nodes[i].shape) for i in nodes) for nodes in (keep, graph.states))
        cuts = job.cuts(saved, states, tensors[0].element_size())
        again = job.save != "all" and len(cuts) > 1
        done = _Pieces(job, tensors, () if again else keep, cuts)
        held = [s for start in done.starts for s in start] if again else [k[i] for k in done.kept for i in keep]
        ctx.job, ctx.step, ctx.cuts, ctx.keep, ctx.again, ctx.count = job, step, cuts, keep, again, len(tensors)
        ctx.save_for_backward(*tensors, *(held if step is not None else ()))
        # An output may be an input (no frame changed it): autograd wants them apart.
        given = {id(t) for t in tensors}
        return tuple(o.clone() if id(o) in given else o for o in done.outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        job: _Job = ctx.job
        saved = ctx.saved_tensors  # once: under torch.utils.checkpoint they are gone after that
        tensors, held = saved[: ctx.count], saved[ctx.count :]
        if by_torch(grads):
            stages = lambda apart: _Pieces(job, apart, (), ctx.cuts).outputs
            return (None, *gradients_of(stages, tensors, grads, ctx.needs_input_grad[1:]))
        needs = job.split(ctx.needs_input_grad[1:])
        width = len(job.derived.forward.graph.states)
        dy, d_state, d_states = grads[0], grads[1 : 1 + width], grads[1 + width :]
        run = _BackwardRun(job, ctx.step, tensors, dy, d_states, needs)
        per_piece = width if ctx.again else len(ctx.keep)
        for k in reversed(range(len(ctx.cuts))):
            mine = held[k * per_piece : (k + 1) * per_piece]
            again = job.forward(tensors, ctx.cuts[k], mine, ctx.keep).kept if ctx.again else None
            kept = dict(zip(ctx.keep, mine, strict=True)) if again is None else again
            d_state = run.piece(ctx.cuts[k], d_state, kept)
        return (None, *run.gradients(d_state))


def _backward_for(job: _Job, needs: list[tuple[bool, ...]]) -> BackwardProgram | None:
    if not any(map(any, needs)):
        return None
    positions = [frozenset(k for k, need in enumerate(kind) if need) for kind in (needs[0], needs[3])]
    weights = frozenset(w for w, need in zip(job.derived.forward.weights, needs[4], strict=True) if need)
    return job.derived.backward(positions[0], positions[1], weights)


class _BackwardRun:
    """Accumulates gradients over pieces of time, from the last to the first."""

    def __init__(
        self,
        job: _Job,
        step: BackwardProgram,
        tensors: Sequence[Tensor],
        dy: Tensor,
        d_states: Sequence[Tensor],
        needs: list[tuple[bool, ...]],
    ):
        self.job, self.step, self.dy, self.d_states, self.needs = job, step, dy, d_states, needs
        _, _, initial, constants, weights = job.split(tensors)
        by_node = dict(zip(job.derived.forward.weights, weights, strict=True))
        program = step.program
        self.values = evaluate_weights(program.graph, program.weights, by_node.__getitem__, dy)
        self.weights = by_node
        self.weight_grads: dict[int, Tensor] = {}
        self.input_grads: dict[int, list[Tensor]] = {k: [] for k in step.step.inputs}
        self.constant_grads = {k: torch.zeros_like(constants[k]) for k in step.step.constants}
        self.initial_grads = [torch.zeros_like(i) for i in initial]

    def piece(self, cut: tuple[int, int], d_state: Sequence[Tensor], kept: dict[int, Tensor]) -> tuple[Tensor, ...]:
        job, step = self.job, self.step.step
        sizes, (first, last) = job.frames.sizes, cut
        start, stop = sum(sizes[:first]), sum(sizes[:last])
        at = sizes[first:last]
        row = None if job.row is None else job.row[start:stop]
        done = self.step.program.run(
            inputs=[self.dy[start:stop], *(kept[i] for i in step.saved)],
            state=d_state,
            constants=[kept[i] for i in step.saved_once],
            weights=self.values,
            sizes=at,
            row=row,
            between=Between(
                job.resets[first:last] if self.initial_grads else (),
                added=tuple(d[start:stop] for d in self.d_states),
                caught=tuple(self.initial_grads),
            ),
            backwards=True,
            parallel=job.parallel,
        )
        for k, output in step.inputs.items():
            self.input_grads[k].append(done.outputs[output])
        for k, output in step.constants.items():
            assert row is not None
            self.constant_grads[k].index_add_(0, row, done.outputs[output])
        for grad in step.weights:
            total = _contract(grad, done.outputs, self.weights[grad.weight])
            known = self.weight_grads.get(grad.weight)
            self.weight_grads[grad.weight] = total if known is None else known + total
        return done.state

    def gradients(self, d_state: Sequence[Tensor]) -> list[Tensor | None]:
        """In the order of the function's tensors."""
        x, state, initial, constants, weights = self.needs
        nodes = self.job.derived.forward.weights
        return [
            *(torch.cat(self.input_grads[k][::-1]) if need else None for k, need in enumerate(x)),
            *(d if need else None for d, need in zip(d_state, state, strict=True)),
            *(d if need else None for d, need in zip(self.initial_grads, initial, strict=True)),
            *(self.constant_grads[k] if need else None for k, need in enumerate(constants)),
            *(
                self.weight_grads.get(w, torch.zeros_like(self.weights[w])) if need else None
                for w, need in zip(nodes, weights, strict=True)
            ),
        ]


def _contract(grad: WeightGrad, outputs: Sequence[Tensor], weight: Tensor) -> Tensor:
    """One contraction over all frames."""
    g = outputs[grad.cotangent]
    if grad.operand is None:
        return g.sum(0).sum_to_size(weight.shape)
    a = outputs[grad.operand]
    if grad.contraction == "block_linear":
        return torch.einsum("ngj,ngk->gjk", g, a)
    return g.reshape(-1, g.shape[-1]).t() @ a.reshape(-1, a.shape[-1])


def by_torch(grads: Sequence[Tensor]) -> bool:
    """Whether a backward pass must be torch operations: for ``create_graph``, or for many cotangents at once."""
    return torch.is_grad_enabled() or any(map(torch._C._functorch.is_legacy_batchedtensor, grads))


def gradients_of(
    function: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    tensors: Sequence[Tensor],
    grads: Sequence[Tensor],
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Those of `tensors`, by torch's own autograd through `function`; they can be differentiated again."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        apart = [t.view_as(t) for t in tensors]  # one may be computed from another: that way is the caller's
        outputs = function(apart)
    pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad]
    ends, cotangents = [o for o, _ in pairs], [g for _, g in pairs]
    wanted = [t for t, need in zip(apart, needs, strict=True) if need]
    found = iter(torch.autograd.grad(ends, wanted, cotangents, create_graph=create_graph, allow_unused=True))
    return [next(found) if need else None for need in needs]


def run(request: Request, save: str | int, *, parallel: bool = False) -> Result:
    """Run a request whose cell can be derived; `parallel`, if it is linear in its state, for all frames at once."""
    derived = request.derived
    dtype = request.x[0].dtype
    work = torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
    named = request.leaves
    found = evaluate_weights(
        derived.forward.graph,
        derived.forward.weights,
        lambda path: _raised(named[path], work),
        torch.empty((), dtype=work, device=request.x[0].device),
    )
    weights = [_raised(w, work) for w in found]
    initial = request.initial() if request.reset is not None else ()
    return over_leaves(derived, request, initial, weights, save, parallel=parallel)


def over_leaves(
    derived: Derived,
    request: Request,
    initial: Leaves,
    weights: Sequence[Tensor],
    save: str | int,
    *,
    parallel: bool = False,
) -> Result:
    """Run a request with these states of a reset and these values of the derived step's weights."""
    graph = derived.forward.graph
    x, device, dtype = request.x, request.x[0].device, request.x[0].dtype
    lengths = None if request.lengths is None else request.lengths.cpu()
    frames = Frames(request.T, request.B, request.reverse, lengths, device)
    if not frames.count:
        y = x[0].new_zeros(request.T, request.B, *extent(graph.nodes[graph.outputs[0]].shape))
        if request.T and not request.B:  # as in the loop, all weights have a part in it, and a gradient of zero
            y = y + torch.cat([w.flatten()[:0] for w in weights if w.is_floating_point()] or [y.flatten()]).sum()
        every = tuple(s.expand(request.T, *s.shape) for s in request.state) if request.return_states else None
        return Result(y, request.state, every)
    work = torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
    resets = frames.resets(request.reset)
    parts: list[Sequence[Tensor]] = [
        [frames.pack(v) for v in x],
        [frames.sort(s) for s in request.state],
        [frames.sort(s) for s in initial] if any(r is not None for r in resets) else [],
        [frames.sort(c) for c in request.constants],
    ]
    tensors = [_raised(v, work) for part in parts for v in part] + list(weights)
    if not torch.is_grad_enabled():  # autograd would still say that weights need a gradient, and all would be kept
        tensors = [t.detach() for t in tensors]
    counts = (*map(len, parts), len(weights))
    job = _Job(derived, frames, resets, request.return_states, save, parallel, counts)
    outputs = [o.to(dtype) if o.dtype == work else o for o in _Scan.apply(job, *tensors)]
    K = len(graph.states)
    state = tuple(frames.unsort(s) for s in outputs[1 : 1 + K])
    every = None
    if request.return_states:
        padding = request.state if request.reverse else state  # where no frame ran, the state of before or after
        every = tuple(frames.unpack(v, p) for v, p in zip(outputs[1 + K :], padding, strict=True))
    return Result(frames.unpack(outputs[0]), state, every)


def _raised(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Half precision is computed in float32; whole numbers and booleans stay what they are."""
    return value.to(dtype) if value.is_floating_point() else value
