"""Scans on the native CPU machine: forward and backward programs, lowered from the derived steps.

Inputs and outputs stay padded, time first: the machine reads and writes valid frames where they lie. What the backward
pass needs is kept on *tapes*, packed rows in the machine's own order, in memory that is reused from call to call.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from recurra.engine import staged
from recurra.engine.derive import BackwardProgram, Derived, derive, leaves_of
from recurra.engine.program import evaluate_weights
from recurra.engine.request import Leaves, Request, Result
from recurra.engine.shares import Shares, loop_weights, split
from recurra.kernels.cpu import native
from recurra.kernels.lower import lower
from recurra.kernels.program import Contraction, Program
from recurra.shapes import extent, numel
from recurra.steps.graph import StepGraph
from recurra.steps.ops import OPS
from recurra.steps.stages import Scope, Staged
from recurra.steps.vjp import Backward

_CHUNK_ROWS = 256  # rows of a chunk of time: its values stay in a second-level cache
_WITHIN_ROWS = 8  # from so many rows of a frame on, pointwise work is done inside of the loop


@dataclass(frozen=True)
class _Lowered:
    """A program, and the machine's form of it."""

    program: Program
    handle: Any

    @staticmethod
    def of(program: Program) -> "_Lowered":
        handle = native().Program(**program.tables())
        return _Lowered(program, handle)


@dataclass(frozen=True)
class _Job:
    """One scan; its tensors travel apart, in the order of `counts`."""

    request: Request  # for its arguments: its tensors are not used
    derived: Derived
    frames: Shares
    save: str | int
    dtype: torch.dtype
    counts: tuple[int, ...]  # how many tensors are inputs, states, states of a reset, constants, weights

    def split(self, tensors: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The tensors, kind by kind."""
        parts, start = [], 0
        for count in self.counts:
            parts.append(tuple(tensors[start : start + count]))
            start += count
        return parts

    @property
    def graph(self) -> StepGraph:
        return self.derived.forward.graph

    @property
    def wide(self) -> int:
        """1 for double precision."""
        return int(self.dtype is torch.float64)

    @property
    def within(self) -> bool:
        return _WITHIN_ROWS * self.frames.shares <= self.frames.B

    @cached_property
    def reset(self) -> Tensor | None:
        return None if self.request.reset is None else self.request.reset.cpu().contiguous()

    def empty(self, *shape: int) -> Tensor:
        """Memory that is reused from call to call."""
        made: Tensor = (native().empty_double if self.wide else native().empty_float)(list(shape))
        return made

    def tape(self, width: int, rows: int) -> Tensor:
        return self.empty(rows, native().stride(self.wide, width))

    def cuts(self, keep: Sequence[int]) -> list[tuple[int, int]]:
        """The pieces of time whose values are kept, or computed again, together."""
        T, B, graph = self.frames.most, self.frames.B, self.graph
        if self.save == "all":
            length = T
        elif self.save == "sqrt":
            length = math.isqrt(T - 1) + 1
        else:
            saved, states = (sum(numel(graph.nodes[i].shape) for i in nodes) for nodes in (keep, graph.states))
            size = 8 if self.wide else 4
            need = lambda n: (n * saved + math.ceil(T / n) * states) * B * size
            length = next((n for n in range(T, 0, -1) if need(n) <= int(self.save)), math.isqrt(T - 1) + 1)
        return [(t, min(t + length, T)) for t in range(0, T, length)]

    # --- lowered programs, once a structure ---------------------------------------------------------------------------

    def forward_program(self, keep: tuple[int, ...]) -> _Lowered:
        """The step forward, which keeps these nodes."""
        every = self.request.return_states
        key = ("native", keep, every, self.within)
        if key not in self.derived.memo:
            outputs = [self.graph.outputs[0], *(self.graph.next_states if every else ())]
            self.derived.memo[key] = _Lowered.of(
                lower(self.derived.forward.staged, outputs=outputs, keep=keep, within=self.within)
            )
        return self.derived.memo[key]  # type: ignore[no-any-return]

    def backward_program(self, step: BackwardProgram, keep: tuple[int, ...]) -> _Lowered:
        """The step backward, from what the forward one kept."""
        key = ("native", self.within)
        if key not in step.memo:
            graph, first = step.step.staged.graph, len(self.graph.outputs)
            taped = [first + step.step.saved.index(i) for i in keep]
            outputs = [graph.outputs[o] for o in (*step.step.inputs.values(), *step.step.constants.values())]
            step.memo[key] = _Lowered.of(
                lower(
                    step.step.staged,
                    outputs=outputs,
                    taped=taped,
                    contractions=contractions(step.step),
                    within=self.within,
                )
            )
        return step.memo[key]  # type: ignore[no-any-return]

    # --- one run ------------------------------------------------------------------------------------------------------

    def run(
        self,
        lowered: _Lowered,
        cut: tuple[int, int],
        *,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        weights: Mapping[int, Tensor],
        once: Mapping[int, Tensor],
        state: Sequence[Tensor],
        last: Sequence[Tensor],
        initial: Sequence[Tensor] = (),
        caught: Sequence[Tensor] = (),
        added: Sequence[Tensor] = (),
        tapes: Sequence[Tensor] = (),
        gradients: Sequence[Tensor] = (),
        backwards: bool = False,
    ) -> None:
        frames, program, (first, stop) = self.frames, lowered.program, cut
        vectors = [weights[i].expand(wide).reshape(-1).contiguous() for i, wide in program.vectors]
        matrices = [weights[i] if head is None else weights[i][head] for i, head in program.matrices]
        rows = [once[i].to(self.dtype).contiguous() for i in program.once]
        address = lambda tensors: [t.data_ptr() for t in tensors]
        native().run(
            lowered.handle,
            self.wide,
            0,
            [
                frames.T,
                frames.B,
                first,
                stop - first,
                +backwards,
                +frames.reverse,
                +(frames.lengths is not None),
                _CHUNK_ROWS,
                frames.workers,
                frames.team,
            ],
            frames.share_start,
            frames.order,
            frames.row_lengths,
            0 if self.reset is None else self.reset.data_ptr(),
            address(inputs),
            address(outputs),
            address(vectors),
            [(m.data_ptr(), m.stride(0), m.stride(1)) for m in matrices],
            address(state),
            address(last),
            address(initial),
            address(caught),
            address(added),
            address(rows),
            address(tapes),
            address(gradients),
        )


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
                made.append(Contraction(*node.args, width=(width, 0)))
            else:
                made.append(Contraction(g, None, width=(width, 0)))
            continue
        a = graph.outputs[grad.operand]
        made.append(Contraction(g, a, grad.contraction == "block_linear", (width, graph.nodes[a].shape[-1].size)))
    return made


def _of_sequences(staged: Staged, values: dict[int, Any]) -> dict[int, Tensor]:
    """The values that have one row a sequence: a few, made by torch. `values` holds constants and weights."""
    graph, known = staged.graph, dict(values)
    for i, node in graph:
        if node.op == "const":
            known[i] = node.attrs
        elif staged.scope[i] is Scope.SEQUENCE and i not in known:
            known[i] = OPS[node.op].torch(*[known[a] for a in node.args], attrs=node.attrs)  # type: ignore[misc]
    return {i: v for i, v in known.items() if staged.scope[i] is Scope.SEQUENCE}


class _Scan(torch.autograd.Function):
    """Padded inputs in; outputs, last states and, where asked for, the states of every frame out."""

    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: Tensor) -> Any:
        step = _backward_for(job, job.split(ctx.needs_input_grad[1:]))
        keep = () if step is None else tuple(i for i in step.step.saved if i not in job.graph.inputs)
        cuts = job.cuts(keep)
        again = step is not None and len(cuts) > 1
        graph, frames = job.graph, job.frames
        lowered = job.forward_program(() if again else keep)
        outputs = [job.empty(frames.T, frames.B, *extent(graph.nodes[i].shape)) for i in lowered.program.outputs]
        _, state, *_ = job.split(tensors)
        held: list[Tensor] = []
        for cut in cuts if again else [(0, frames.most)]:
            last = [torch.empty_like(s) for s in state]
            tapes = _tapes(job, lowered, cut)
            _forward(job, lowered, cut, tensors, state, last, outputs, tapes)
            held += state if again else tapes
            state = tuple(last)
        ctx.job, ctx.step, ctx.cuts, ctx.keep, ctx.again, ctx.count = job, step, cuts, keep, again, len(tensors)
        ctx.save_for_backward(*tensors, *(held if step is not None else ()))
        by_node = dict(zip(lowered.program.outputs, outputs, strict=True))
        every = [by_node[i] for i in graph.next_states] if job.request.return_states else []
        # The same values under two names: autograd wants them apart, and given inputs apart from outputs.
        seen: set[int] = set()
        apart = []
        for o in (by_node[graph.outputs[0]], *state, *every):
            apart.append(o.clone() if id(o) in seen else o)
            seen.add(id(o))
        return tuple(apart)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        job: _Job = ctx.job
        tensors, held = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        if torch.is_grad_enabled():  # create_graph=True: differentiate the stages themselves
            return (None, *_differentiable(job, tensors, grads, ctx.needs_input_grad[1:]))
        return (None, *_backward(ctx, job, tensors, held, [g.contiguous() for g in grads]))


def _tapes(job: _Job, lowered: _Lowered, cut: tuple[int, int]) -> list[Tensor]:
    rows = job.frames.rows(*cut)
    return [job.tape(width, rows) for _, width in lowered.program.tapes]


def _forward(
    job: _Job,
    lowered: _Lowered,
    cut: tuple[int, int],
    tensors: Sequence[Tensor],
    state: Sequence[Tensor],
    last: Sequence[Tensor],
    outputs: Sequence[Tensor],
    tapes: Sequence[Tensor],
) -> None:
    x, _, initial, constants, weights = job.split(tensors)
    by_node = dict(zip(job.derived.forward.weights, weights, strict=True))
    given = dict(zip(job.graph.constants, constants, strict=True))
    job.run(
        lowered,
        cut,
        inputs=[x[k] for k in lowered.program.inputs],
        outputs=outputs,
        weights=by_node,
        once=_of_sequences(job.derived.forward.staged, by_node | given) if given else {},
        state=state,
        last=last,
        initial=initial,
        tapes=tapes,
    )


def _backward_for(job: _Job, needs: list[tuple[bool, ...]]) -> BackwardProgram | None:
    if not any(map(any, needs)):
        return None
    positions = [frozenset(k for k, need in enumerate(kind) if need) for kind in (needs[0], needs[3])]
    weights = frozenset(w for w, need in zip(job.derived.forward.weights, needs[4], strict=True) if need)
    return job.derived.backward(positions[0], positions[1], weights)


def _backward(
    ctx: Any, job: _Job, tensors: Sequence[Tensor], held: Sequence[Tensor], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    step, graph, frames = ctx.step.step, job.graph, job.frames
    needs = job.split(ctx.needs_input_grad[1:])
    x, _, initial, constants, weights = job.split(tensors)
    K = len(graph.states)
    dy, d_state, added = grads[0], grads[1 : 1 + K], grads[1 + K :]
    lowered = job.backward_program(ctx.step, ctx.keep)
    program = lowered.program
    by_node = dict(zip(job.derived.forward.weights, weights, strict=True))
    values = dict(
        zip(
            ctx.step.program.weights,
            evaluate_weights(step.staged.graph, ctx.step.program.weights, by_node.__getitem__, dy),
            strict=True,
        )
    )
    first = len(graph.outputs)
    given: dict[int, Tensor] = {
        first + k: x[graph.inputs.index(i)] for k, i in enumerate(step.saved) if i in graph.inputs
    }
    given[0] = dy
    if step.saved_once:
        fixed = _of_sequences(job.derived.forward.staged, by_node | dict(zip(graph.constants, constants, strict=True)))
        known = {n: fixed[i] for n, i in zip(step.staged.graph.constants, step.saved_once, strict=True)}
        once = _of_sequences(step.staged, values | known)
    else:
        once = {}
    outputs = [job.empty(frames.T, frames.B, *extent(step.staged.graph.nodes[i].shape)) for i in program.outputs]
    caught = [torch.zeros_like(i) for i in initial]
    sums: dict[int, Tensor] = {}
    per_piece = K if ctx.again else len(program.tapes)
    for k in reversed(range(len(ctx.cuts))):
        cut, mine = ctx.cuts[k], held[k * per_piece : (k + 1) * per_piece]
        if ctx.again:
            fresh = job.forward_program(ctx.keep)
            tapes = _tapes(job, fresh, cut)
            unwanted = [job.empty(frames.T, frames.B, *extent(graph.nodes[i].shape)) for i in fresh.program.outputs]
            _forward(job, fresh, cut, tensors, mine, [torch.empty_like(s) for s in mine], unwanted, tapes)
        else:
            tapes = list(mine)
        last = [torch.empty_like(d) for d in d_state]
        gradients = [job.empty(*((m, n) if n else (m,))) for m, n, _ in program.gradients]
        job.run(
            lowered,
            cut,
            inputs=[given[k] for k in program.inputs],
            outputs=outputs,
            weights=values,
            once=once,
            state=d_state,
            last=last,
            initial=initial,
            caught=caught,
            added=added,
            tapes=tapes,
            gradients=gradients,
            backwards=True,
        )
        d_state = last
        for grad, value in zip(step.weights, gradients, strict=True):
            shape = by_node[grad.weight].shape
            if grad.operand is None:
                of = extent(step.staged.graph.nodes[step.staged.graph.outputs[grad.cotangent]].shape)
                value = value.view(of).sum_to_size(shape)
            total = value.reshape(shape)
            sums[grad.weight] = sums[grad.weight] + total if grad.weight in sums else total
    made = dict(zip(program.outputs, outputs, strict=True))
    at = lambda o: made[step.staged.graph.outputs[o]]
    return [
        *(at(step.inputs[k]) if need else None for k, need in enumerate(needs[0])),
        *(d if need else None for d, need in zip(d_state, needs[1], strict=True)),
        *(d if need else None for d, need in zip(caught, needs[2], strict=True)),
        *(at(step.constants[k]).sum(0) if need else None for k, need in enumerate(needs[3])),
        *(
            sums.get(w, torch.zeros_like(by_node[w])) if need else None
            for w, need in zip(job.derived.forward.weights, needs[4], strict=True)
        ),
    ]


def _differentiable(
    job: _Job, tensors: Sequence[Tensor], grads: Sequence[Tensor], needs: Sequence[bool]
) -> list[Tensor | None]:
    x, state, initial, constants, weights = job.split(tensors)
    request = job.request.replace(x=x, state=state, constants=constants)
    done = staged.over_leaves(job.derived, request, initial, weights, job.save)
    outputs = (done.y, *done.state, *(done.states or ()))
    pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad]
    wanted = [t for t, need in zip(tensors, needs, strict=True) if need]
    found = iter(
        torch.autograd.grad([o for o, _ in pairs], wanted, [g for _, g in pairs], create_graph=True, allow_unused=True)
    )
    return [next(found) if need else None for need in needs]


def refusal(request: Request) -> str:
    """Why the native machine cannot run this; empty where it can."""
    if native() is None:
        return "Recurra was installed without its native extension (recurra doctor says why)"
    if request.x[0].device.type != "cpu":
        return f"it runs on CPUs, and the input is on {request.x[0].device.type}"
    return "" if request.T and request.B else "there is no frame to run"


def run(request: Request, save: str | int) -> Result:
    """Run a request whose cell can be derived."""
    derived = derive(request.cell)
    graph, dtype = derived.forward.graph, request.x[0].dtype
    if request.lengths is not None and not int(request.lengths.max()):
        return staged.run(request, save)  # no frame at all: nothing to be fast at
    work = torch.float64 if dtype is torch.float64 else torch.float32
    lengths = None if request.lengths is None else tuple(request.lengths.tolist())
    shares, workers, team = split(
        request.B, torch.get_num_threads(), loop_weights(derived.forward.staged) * (8 if work is torch.float64 else 4)
    )
    frames = Shares(request.T, request.B, request.reverse, shares, workers, team, lengths)
    named = leaves_of(request.cell)
    weights = evaluate_weights(
        graph, derived.forward.weights, lambda path: named[path].to(work), torch.empty((), dtype=work)
    )
    parts: list[Leaves] = [
        request.x,
        request.state,
        request.initial() if request.reset is not None else (),
        request.constants,
    ]
    tensors = [v.to(work).contiguous() for part in parts for v in part] + weights
    if not torch.is_grad_enabled():  # autograd would still say that weights need a gradient, and all would be kept
        tensors = [t.detach() for t in tensors]
    job = _Job(request, derived, frames, save, work, (*map(len, parts), len(weights)))
    outputs = [o.to(dtype) for o in _Scan.apply(job, *tensors)]
    K = len(graph.states)
    state, every = tuple(outputs[1 : 1 + K]), None
    if request.return_states:
        every = tuple(outputs[1 + K :])
        if request.lengths is not None:  # where no frame ran, the state of before or after
            padding = request.state if request.reverse else state
            valid = torch.arange(request.T)[:, None] < request.lengths
            like = lambda v: valid.reshape(*valid.shape, *[1] * (v.dim() - 2))
            every = tuple(torch.where(like(v), v, p) for v, p in zip(every, padding, strict=True))
    return Result(outputs[0], state, every)
