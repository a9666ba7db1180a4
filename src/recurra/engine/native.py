"""Scans on the native CPU machine: forward and backward programs, lowered from the derived steps.

Inputs and outputs stay padded, time first: the machine reads and writes valid frames where they lie. What the backward
pass needs is kept on *tapes*, packed rows in the machine's own order, in memory that is reused from call to call.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from recurra.engine import staged
from recurra.engine.derive import Derived
from recurra.engine.lowered import Kind, Lowered
from recurra.engine.options import WEIGHTS
from recurra.engine.program import evaluate_weights
from recurra.engine.request import Request, Result, check_nan
from recurra.engine.shares import Shares, split
from recurra.errors import OptionError
from recurra.kernels.cpu import native
from recurra.kernels.program import Program
from recurra.shapes import extent
from recurra.steps.ops import OPS
from recurra.steps.stages import Scope, Staged

CHUNK_ROWS = 256  # rows of a chunk of time: its values stay in a second-level cache
BYTES = {"float": 4, "bfloat16": 2, "int8": 1}  # of a weight, by options.WEIGHTS
WITHIN_ROWS = 8  # from so many rows of a frame on, pointwise work is done inside of the loop
# Rows of a piece of time, at least: its three calls cost as much as some rows of an LSTM with H = 64, and with twice as
# many rows its tapes would leave the second-level cache.
_PIECE_ROWS = 256
_SMALL = 16384  # numbers: up to here torch gives memory in half the time that the pool takes


class Job:
    """One scan; its tensors travel apart."""

    def __init__(
        self,
        kind: Kind,
        frames: Shares,
        save: str | int,
        reset: Tensor | None,
        weights: str = "float",
        request: Request | None = None,
        look: bool = False,
    ):
        self.request = request  # for derivatives of derivatives: its tensors are not used
        self.kind, self.frames, self.save, self.weights = kind, frames, save, weights
        self.look = look  # for NaN in inputs, while they are read
        self.reset = None if reset is None else reset.cpu().contiguous()
        T = frames.most
        length = T if kind.step is None else _length(self, *kind.saved_rows)
        # The pieces of time whose values are kept, or computed again, together.
        self.cuts = [(t, min(t + length, T)) for t in range(0, T, length)]

    def empty(self, *shape: int) -> Tensor:
        """Memory that is reused from call to call."""
        if math.prod(shape) <= _SMALL:
            return torch.empty(shape, dtype=self.kind.dtype)
        made: Tensor = (native().empty_double if self.kind.wide else native().empty_float)(list(shape))
        return made

    def outputs(self, lowered: Lowered) -> list[Tensor]:
        return [self.empty(self.frames.T, self.frames.B, *row) for row in lowered.outputs]

    def tape(self, lowered: Lowered, cut: tuple[int, int]) -> Tensor:
        """The tapes of a piece of time, one behind the other."""
        return self.empty(self.rows(cut), sum(lowered.tapes))

    def rows(self, cut: tuple[int, int]) -> int:
        """The valid frames of a piece of time."""
        first, last = cut
        return (last - first) * self.frames.B if self.frames.lengths is None else self.frames.rows(first, last)


def _length(job: "Job", saved: int, states: int) -> int:
    """Frames of a piece of time, where a row saves so many numbers, and the states of a sequence are so many."""
    T, B, save = job.frames.most, job.frames.B, job.save
    root = math.isqrt(T - 1) + 1
    if save == "all":
        return T
    if save == "sqrt":
        return max(root, -(-_PIECE_ROWS // B))
    need = lambda n: (n * saved + math.ceil(T / n) * states) * B * (8 if job.kind.wide else 4)
    return next((n for n in range(T, 0, -1) if need(n) <= int(save)), root)


@lru_cache(maxsize=256)
def _even(T: int, B: int, reverse: bool, dealt: tuple[int, int, int]) -> Shares:
    """A batch whose sequences are of one length."""
    return Shares(T, B, reverse, *dealt, None)


def cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value if value.dtype is dtype else value.to(dtype)  # to ask is ten times cheaper than a call for nothing


def fitted(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in the dtype of a run, its numbers as they lie; booleans stay what they are until the machine reads."""
    if value.dtype is not dtype and value.is_floating_point():
        value = value.to(dtype)
    return value.resolve_neg() if value.is_neg() else value


def operands(program: Program, weights: Mapping[int, Tensor], dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """The vectors and the matrices that a program reads, of its weight nodes."""
    vectors = [cast(weights[i], dtype).expand(shape).contiguous() for i, shape in program.vectors]
    matrices = ((cast(weights[i], dtype), head) for i, head in program.matrices)
    return vectors, [matrix if head is None else matrix[head] for matrix, head in matrices]


Run = Callable[..., bool]  # (cut, state, last, tape, gradients, look): whether all inputs were finite, if it looked


def _bound(
    job: Job,
    lowered: Lowered,
    *,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    weights: Mapping[int, Tensor],
    once: Mapping[int, Tensor],
    initial: Sequence[Tensor] = (),
    caught: Sequence[Tensor] = (),
    added: Sequence[Tensor] = (),
    backwards: bool = False,
) -> Run:
    """A program, with all that stays the same from piece to piece of time."""
    program, frames, wide, reset = lowered.program, job.frames, job.kind.wide, job.reset
    vectors, matrices = operands(program, weights, job.kind.dtype)
    rows = [cast(once[i], job.kind.dtype).contiguous() for i in program.once]
    ragged, threads = +(frames.lengths is not None), frames.workers * frames.team
    lying = [(m.data_ptr(), *m.stride()) for m in matrices]
    packed = native().Packed(lowered.handle, wide, WEIGHTS[job.weights], lying, threads)

    def run(
        cut: tuple[int, int],
        state: Sequence[Tensor],
        last: Sequence[Tensor],
        tape: Tensor | None = None,
        gradients: Sequence[Tensor] = (),
        look: bool = False,
    ) -> bool:
        """Over the frames of a cut, from `state` before the first one to `last` after the last one."""
        first, stop = cut
        finite: bool = native().run(
            lowered.handle,
            wide,
            packed,
            [
                *(frames.T, frames.B, first, stop - first, +backwards, +frames.reverse, ragged, CHUNK_ROWS),
                *(frames.workers, frames.team),
            ],
            frames.share_start,
            frames.order,
            frames.row_lengths,
            0 if reset is None else reset.data_ptr(),
            [t.data_ptr() for t in inputs],
            [t.data_ptr() for t in outputs],
            [t.data_ptr() for t in vectors],
            [t.data_ptr() for t in state],
            [t.data_ptr() for t in last],
            [t.data_ptr() for t in initial],
            [t.data_ptr() for t in caught],
            [t.data_ptr() for t in added],
            [t.data_ptr() for t in rows],
            [] if tape is None else lowered.addresses(tape),
            [t.data_ptr() for t in gradients],
            look,
        )
        return finite

    return run


def of_sequences(staged: Staged, values: dict[int, Any], dtype: torch.dtype) -> dict[int, Tensor]:
    """The values that have one row a sequence: a few, made by torch. `values` holds constants and weights."""
    graph, known = staged.graph, dict(values)
    for i, node in graph:
        if node.op == "const":
            known[i] = graph.number(i, dtype)
        elif staged.scope[i] is Scope.SEQUENCE and i not in known:
            known[i] = OPS[node.op].torch(*[known[a] for a in node.args], attrs=node.attrs)  # type: ignore[misc]
    return {i: v for i, v in known.items() if staged.scope[i] is Scope.SEQUENCE}


class _Scan(torch.autograd.Function):
    """Padded inputs in; outputs, last states and, where asked for, the states of every frame out."""

    @staticmethod
    def forward(ctx: Any, job: Job, *tensors: Tensor) -> Any:
        outputs, held = forward(job, tensors)
        ctx.job, ctx.count = job, len(tensors)
        ctx.save_for_backward(*tensors, *held)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        job: Job = ctx.job
        saved = ctx.saved_tensors  # once: under torch.utils.checkpoint they are gone after that
        tensors, held = saved[: ctx.count], saved[ctx.count :]
        if staged.by_torch(grads):
            return (None, *staged.gradients_of(partial(_stages, job), tensors, grads, ctx.needs_input_grad[1:]))
        return (None, *backward(job, tensors, held, [g.contiguous().resolve_neg() for g in grads]))


def forward(job: Job, tensors: Sequence[Tensor], tape: Tensor | None = None) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """What a scan gives back, and what its backward pass needs besides its arguments: on `tape`, if that is given."""
    kind, cuts = job.kind, job.cuts
    lowered = kind.recording if len(cuts) == 1 else kind.forward
    outputs = job.outputs(lowered)
    run = _forward_run(job, lowered, tensors, outputs)
    state = kind.split(tensors)[1]
    last = [torch.empty_like(s) for s in state]
    held: list[Tensor] = []
    if len(cuts) == 1:
        held = [job.tape(lowered, cuts[0]) if tape is None else tape] if lowered.tapes else []
        finite = run(cuts[0], state, last, *held, look=job.look)
    else:  # the states before each piece
        held = [s.new_empty(len(cuts), *s.shape) for s in state]
        for h, s in zip(held, state, strict=True):
            h[0] = s
        finite = True
        for k, cut in enumerate(cuts):
            after = [h[k + 1] for h in held] if k + 1 < len(cuts) else last
            finite &= run(cut, [h[k] for h in held], after, look=job.look)
    if job.look and (not finite or len(lowered.program.inputs) < len(job.kind.graph.inputs)):
        check_nan(kind.split(tensors)[0], None if job.frames.lengths is None else torch.tensor(job.frames.lengths))
    by_node = dict(zip(lowered.program.outputs, outputs, strict=True))
    y, *every = (by_node[i] for i in kind.outputs)
    # The same values under two names: autograd wants them apart.
    seen: set[int] = set()
    apart = []
    for o in (y, *last, *every):
        apart.append(o.clone() if id(o) in seen else o)
        seen.add(id(o))
    return tuple(apart), held


def _forward_run(job: Job, lowered: Lowered, tensors: Sequence[Tensor], outputs: Sequence[Tensor]) -> Run:
    x, _, initial, constants, weights = job.kind.split(tensors)
    by_node = dict(zip(job.kind.derived.forward.weights, weights, strict=True))
    given = dict(zip(job.kind.graph.constants, constants, strict=True))
    return _bound(
        job,
        lowered,
        inputs=[x[k] for k in lowered.program.inputs],
        outputs=outputs,
        weights=by_node,
        once=of_sequences(job.kind.derived.forward.staged, by_node | given, job.kind.dtype) if given else {},
        initial=initial,
    )


def backward(
    job: Job, tensors: Sequence[Tensor], held: Sequence[Tensor], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients of a scan's arguments that need one."""
    kind, cuts = job.kind, job.cuts
    assert kind.step is not None
    step, graph, staged_step, lowered = kind.step.step, kind.graph, kind.step.step.staged, kind.backward
    x, _, initial, constants, weights = kind.split(tensors)
    K = len(graph.states)
    dy, state, added = grads[0], grads[1 : 1 + K], grads[1 + K :]
    by_node = dict(zip(kind.derived.forward.weights, weights, strict=True))
    needed = kind.step.program.weights
    values = dict(zip(needed, evaluate_weights(staged_step.graph, needed, by_node.__getitem__, dy), strict=True))
    first = len(graph.outputs)
    given: dict[int, Tensor] = {
        first + k: x[graph.inputs.index(i)] for k, i in enumerate(step.saved) if i in graph.inputs
    }
    given[0] = dy
    once: dict[int, Tensor] = {}
    if step.saved_once:
        fixed = by_node | dict(zip(graph.constants, constants, strict=True))
        fixed = of_sequences(kind.derived.forward.staged, fixed, kind.dtype)
        known = {n: fixed[i] for n, i in zip(staged_step.graph.constants, step.saved_once, strict=True)}
        once = of_sequences(staged_step, values | known, kind.dtype)
    outputs = job.outputs(lowered)
    caught = [torch.zeros_like(i) for i in initial]
    run = _bound(
        job,
        lowered,
        inputs=[given[k] for k in lowered.program.inputs],
        outputs=outputs,
        weights=values,
        once=once,
        initial=initial,
        caught=caught,
        added=added,
        backwards=True,
    )
    turns = [[torch.empty_like(s) for s in state] for _ in cuts[:2]]
    sums: dict[int, Tensor] = {}
    tapes: Iterable[Tensor | None] = (held or [None]) if len(cuts) == 1 else _again(job, tensors, held)
    for k, tape in zip(reversed(range(len(cuts))), tapes, strict=True):
        if k >= len(cuts) - 2:  # those of the newest piece become the sums; all others share one memory
            gradients = [job.empty(*((m, n) if n else (m,))) for m, n, _ in lowered.program.gradients]
        run(cuts[k], state, turns[k % 2], tape, gradients)
        state = turns[k % 2]
        for grad, value in zip(step.weights, gradients, strict=True):
            shape = by_node[grad.weight].shape
            if value.shape != shape:
                if grad.operand is None:  # of each number of the cotangent: a weight may have been broadcast to them
                    of = extent(staged_step.graph.nodes[staged_step.graph.outputs[grad.cotangent]].shape)
                    value = value.view(of).sum_to_size(shape)
                value = value.reshape(shape)
            if grad.weight in sums:
                sums[grad.weight] += value
            else:
                sums[grad.weight] = value
    made = dict(zip(lowered.program.outputs, outputs, strict=True))
    at = lambda o: made[staged_step.graph.outputs[o]]
    zero = lambda w: torch.zeros_like(by_node[w])  # it has no part in what was asked for
    needs = kind.needs
    return [
        *(at(step.inputs[k]) if need else None for k, need in enumerate(needs[0])),
        *(d if need else None for d, need in zip(state, needs[1], strict=True)),
        *(d if need else None for d, need in zip(caught, needs[2], strict=True)),
        *(at(step.constants[k]).sum(0) if need else None for k, need in enumerate(needs[3])),
        *(
            (sums[w] if w in sums else zero(w)) if need else None
            for w, need in zip(kind.derived.forward.weights, needs[4], strict=True)
        ),
    ]


def _again(job: Job, tensors: Sequence[Tensor], held: Sequence[Tensor]) -> Iterator[Tensor]:
    """Each piece forward a second time, from the last to the first: its tape, which the next one uses again."""
    lowered, cuts = job.kind.again, job.cuts
    run = _forward_run(job, lowered, tensors, [])
    tape = job.tape(lowered, cuts[0])  # no later piece has more rows
    unused = [torch.empty_like(h[0]) for h in held]
    for k in reversed(range(len(cuts))):
        run(cuts[k], [h[k] for h in held], unused, tape)
        yield tape


def _stages(job: Job, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The outputs of a scan in torch operations, which can be differentiated."""
    x, state, initial, constants, weights = job.kind.split(tensors)
    assert job.request is not None
    if job.weights == "bfloat16":  # what the machine rounds
        matrices = {i for i, _ in job.kind.recording.program.matrices}
        nodes = job.kind.derived.forward.weights
        rounded = lambda w: w + (w.bfloat16() - w).detach()  # its gradient passes as it is
        weights = [rounded(w) if i in matrices else w for i, w in zip(nodes, weights, strict=True)]
    request = job.request.replace(x=tuple(x), state=tuple(state), constants=tuple(constants))
    done = staged.over_leaves(job.kind.derived, request, initial, weights, job.save)
    return (done.y, *done.state, *(done.states or ()))


def refusal(request: Request) -> str:
    """Why the native machine cannot run this; empty where it can."""
    if native() is None:
        return "Recurra was installed without its native extension (recurra doctor says why)"
    if request.x[0].device.type != "cpu":
        return f"it runs on CPUs, and the input is on {request.x[0].device.type}"
    # Where sizes are symbols the operator finds out when it runs.
    return "" if request.followed or (request.T and request.B) else "there is no frame to run"


def dealt(derived: Derived, wide: int, weights: str, B: int) -> tuple[int, int, int]:
    """How this thread deals a batch: see shares.split."""
    each = 8 if wide else BYTES[weights]
    return split(B, torch.get_num_threads(), derived.loop_weights * each, derived.team_weights * each)


def frames_of(dealt: tuple[int, int, int], T: int, B: int, reverse: bool, lengths: Tensor | None) -> Shares:
    """Which rows run in which frames, and who runs them."""
    if lengths is None:
        return _even(T, B, reverse, dealt)
    return Shares(T, B, reverse, *dealt, tuple(lengths.tolist()))


def kind_of(
    derived: Derived, dtype: torch.dtype, every: bool, frames: Shares | None, needs: tuple[tuple[bool, ...], ...]
) -> Kind:
    """What scans of a kind share; without `frames`, what does not depend on how they run."""
    within = frames is None or WITHIN_ROWS * frames.shares <= frames.B
    key = ("native kind", dtype, every, within, needs)
    found: Kind = derived.memo.get(key) or derived.memo.setdefault(key, Kind(derived, dtype, every, within, needs))
    return found


def working(request: Request) -> torch.dtype:
    """The dtype in which a request runs."""
    return torch.float64 if request.x[0].dtype is torch.float64 else torch.float32


def held(request: Request) -> str:
    """How the matrices of a request lie in the machine: see options.WEIGHTS.

    Raises:
        OptionError: the request does not go with fewer bits.
    """
    weights = request.weights
    if weights == "float":
        return "bfloat16" if request.x[0].dtype is torch.bfloat16 else "float"
    if working(request) is torch.float64:
        raise OptionError("weights in fewer bits are computed with in float32", received="a cell in float64")
    if weights == "int8" and torch.is_grad_enabled() and any(t.requires_grad for t in request.leaves.values()):
        raise OptionError('weights="int8" are for inference', instead='torch.no_grad(), or weights="bfloat16"')
    return weights


def parts_of(request: Request) -> list[list[Tensor]]:
    """The tensors of a request, kind by kind, in the dtype in which it runs; weights are evaluated."""
    derived, work = request.derived, working(request)
    leaves, like = request.leaves, cast(request.x[0], work)
    given = (request.x, request.state, request.initial() if request.reset is not None else (), request.constants)
    parts = [[cast(v, work).contiguous().resolve_neg() for v in part] for part in given]
    graph, weights = derived.forward.graph, derived.forward.weights
    found = evaluate_weights(graph, weights, lambda path: fitted(leaves[path], work), like)
    parts.append([fitted(w, work) for w in found])
    return parts


def result_of(request: Request, outputs: Sequence[Tensor]) -> Result:
    """What the request gets of the outputs of its scan."""
    y, *rest = [cast(o, request.x[0].dtype) for o in outputs]
    K = len(request.state)
    state, every = tuple(rest[:K]), None
    if request.return_states:
        every = tuple(rest[K:])
        if request.lengths is not None:
            every = resting(every, request.state if request.reverse else state, request.lengths)
    return Result(y, state, every)


def resting(every: Sequence[Tensor], padding: Sequence[Tensor], lengths: Tensor) -> tuple[Tensor, ...]:
    """States of all frames; where no frame ran, those of before or after."""
    valid = torch.arange(len(every[0]))[:, None] < lengths
    wide = lambda v: valid.reshape(*valid.shape, *[1] * (v.dim() - 2))
    return tuple(torch.where(wide(v), v, p) for v, p in zip(every, padding, strict=True))


def run(request: Request, save: str | int) -> Result:
    """Run a request whose cell can be derived."""
    derived, work = request.derived, working(request)
    if request.lengths is not None and not int(request.lengths.max()):
        return staged.run(request, save)  # no frame at all: nothing to be fast at
    weights = held(request)
    shares = dealt(derived, work is torch.float64, weights, request.B)
    frames = frames_of(shares, request.T, request.B, request.reverse, request.lengths)
    parts = parts_of(request)
    recorded = torch.is_grad_enabled()
    needs = tuple([tuple([recorded and t.requires_grad for t in part]) for part in parts])
    kind = kind_of(derived, work, request.return_states, frames, needs)
    job = Job(kind, frames, save, request.reset, weights, request, request.look)
    tensors = [t for part in parts for t in part]
    if recorded:
        return result_of(request, _Scan.apply(job, *tensors))
    return result_of(request, forward(job, tensors)[0])  # half of a small call would be autograd's
