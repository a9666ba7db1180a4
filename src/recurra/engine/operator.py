"""The native scan as an operator of torch: one node, forward and backward, for whoever follows tensors.

``recurra::scan`` is given evaluated weights and a *text*: the step as its graph, and what is asked of it, as canonical
JSON without T, B or anything of this machine. Programs are made of the text where the operator runs, so an exported
model needs neither the cell nor its class, only ``import recurra.engine``, which registers the operator.
"""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from recurra.engine import native
from recurra.engine.derive import Derived
from recurra.engine.lowered import Kind
from recurra.engine.options import current_options
from recurra.engine.program import Program
from recurra.engine.request import Request, Result, check_frames
from recurra.errors import ExecutorError, InputShapeError
from recurra.kernels.cpu import native as machine
from recurra.shapes import Dim, extent, numel
from recurra.steps.graph import Node, StepGraph
from recurra.steps.stages import stages

# Of the text; another one means that an operation of steps/ops.py, the text itself, or what the operator gives out is
# something else. Compilers keep what they made of an operator under its text.
_FORM = 2
_ROLES = ("inputs", "states", "constants", "outputs", "next_states")
_PARTS = ("x", "state", "initial", "constants", "weights")  # as Kind.split has them
_ARGUMENTS = ", ".join([*(f"Tensor[] {part}" for part in _PARTS), "Tensor? lengths", "Tensor? reset"])
F = TypeVar("F", bound=Callable[..., Any])


def run(request: Request, save: str | int) -> Result:
    """Run a request on the native machine: through the operator where someone follows, straight where nobody does."""
    if not request.followed:
        return native.run(request, save)
    parts = native.parts_of(request)
    outputs = torch.ops.recurra.scan(*parts, request.lengths, request.reset, text_of(request, parts, save))
    return native.result_of(request, outputs[: 1 + len(request.state) * (1 + request.return_states)])


def text_of(request: Request, parts: Sequence[Sequence[Tensor]], save: str | int) -> str:
    """The text of a request whose tensors are `parts`."""
    # An exported program is there to be run; should it be trained, its backward pass runs the scan again.
    recorded = torch.is_grad_enabled() and not torch.compiler.is_exporting()
    return written(
        request.derived,
        needs=[[recorded and t.requires_grad for t in part] for part in parts],
        wide=native.working(request) is torch.float64,
        weights=native.held(request),
        every=request.return_states,
        reverse=request.reverse,
        save=save,
        check_nan=current_options().check_nan,
    )


# --- the text ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scan:
    """What a text says."""

    derived: Derived
    needs: tuple[tuple[bool, ...], ...]  # as of Kind
    wide: bool  # in double precision
    every: bool  # the states of all frames are wanted
    reverse: bool
    save: str | int
    check_nan: bool
    weights: str = "float"  # see options.WEIGHTS

    @property
    def dtype(self) -> torch.dtype:
        """In which it runs."""
        return torch.float64 if self.wide else torch.float32

    @property
    def kind(self) -> Kind:
        """What all runs share; how they run is another question."""
        return native.kind_of(self.derived, self.dtype, self.every, None, self.needs)

    @property
    def taped(self) -> int:
        """Numbers a row of the tape that the operator gives out; 0 where the backward pass runs the scan again."""
        graph = self.derived.forward.graph
        rows = [numel(graph.nodes[i].shape) for i in self.kind.keep] if self.save == "all" else []
        return sum(_stride(width, 8 if self.wide else 4) for width in rows)


def written(derived: Derived, **asked: Any) -> str:
    """The text of a scan. What the step computes from weights alone has become leaves: its frames' operands."""
    graph, weights = derived.forward.graph, {i: k for k, i in enumerate(derived.forward.weights)}
    needed, todo = set[int](), [i for role in _ROLES for i in getattr(graph, role)]
    while todo:
        i = todo.pop()
        if i not in needed:
            needed.add(i)
            todo.extend(() if i in weights else graph.nodes[i].args)
    number = {i: k for k, i in enumerate(sorted(needed))}
    nodes = []
    for i in number:
        node = graph.nodes[i]
        row = ("leaf", (), ("weight", weights[i])) if i in weights else (node.op, node.args, node.attrs)
        nodes.append((row[0], [number[a] for a in row[1]], extent(node.shape), row[2]))
    ends = {role: [number[i] for i in getattr(graph, role)] for role in _ROLES}
    return _json({"form": _FORM, "nodes": nodes, **ends, **asked})


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@functools.lru_cache(maxsize=128)
def read(text: str) -> Scan:
    """The scan of a text, with the programs that were made of it.

    Raises:
        ExecutorError: the text is of another form.
    """
    said = json.loads(text)
    if said.pop("form", None) != _FORM:
        raise ExecutorError(
            "this program was exported by a version of Recurra that writes scans in another form",
            instead="export it again, or run it with that version",
        )
    nodes = tuple(Node(op, tuple(args), tuple(map(Dim, size)), _tuples(at)) for op, args, size, at in said.pop("nodes"))
    graph = StepGraph(nodes, *(tuple(said.pop(role)) for role in _ROLES))
    return Scan(Derived(Program(stages(graph))), _tuples(said.pop("needs")), **said)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _stride(width: int, size: int) -> int:
    """Numbers from row to row of a tape where vectors are widest: no target needs more (kernels/cpu/layout.h)."""
    lanes = 64 // size
    wide = -(-width // lanes) * lanes
    return wide + lanes if wide * size % 1024 == 0 else wide


# --- the operators ----------------------------------------------------------------------------------------------------


def _job(
    scan: Scan,
    parts: Sequence[Sequence[Tensor]],
    lengths: Tensor | None,
    reset: Tensor | None,
    *,
    look: bool = False,
    tape: Tensor | None = None,
) -> tuple[native.Job | None, list[Tensor]]:
    """A job and its tensors, dealt to threads as the batch of `tape` was; none where no frame runs."""
    if machine() is None:
        raise ExecutorError("recurra::scan needs the native machine, and Recurra was installed without it")
    graph, weights = scan.derived.forward.graph, scan.derived.forward.weights
    T, B = parts[0][0].shape[:2]
    leads = ((T, B), (B,), (B,), (B,), ())
    leaves = (graph.inputs, graph.states, graph.states if parts[2] else (), graph.constants, weights)
    for lead, wanted, given in zip(leads, leaves, parts, strict=True):  # the machine itself asks no questions
        shapes = [(*lead, *extent(graph.nodes[i].shape)) for i in wanted]
        if shapes != [tuple(t.shape) for t in given]:
            raise InputShapeError(
                "the tensors do not fit the program of recurra::scan",
                received=f"{[tuple(t.shape) for t in given]} for {shapes}",
            )
    if lengths is not None:
        lengths = check_frames(lengths.cpu(), T)
    tensors = [t.to(scan.dtype).contiguous().resolve_neg() for part in parts[:-1] for t in part]
    tensors += [native.fitted(t, scan.dtype).contiguous() for t in parts[-1]]
    if not T or not B or (lengths is not None and not int(lengths.max())):
        return None, tensors
    dealt = native.dealt(scan.derived, scan.wide, scan.weights, B) if tape is None else _dealt(tape)
    frames = native.frames_of(dealt, T, B, scan.reverse, lengths)
    kind = native.kind_of(scan.derived, scan.dtype, scan.every, frames, scan.needs)
    return native.Job(kind, frames, scan.save, reset, scan.weights, look=look and scan.check_nan), tensors


def _laid(tape: Tensor, job: native.Job) -> Tensor:
    """The part of an operator's tape that this machine uses, as its rows lie."""
    rows, width = job.rows(job.cuts[0]), sum(job.kind.recording.tapes)
    return tape.view(-1)[: rows * width].view(rows, width)


def _dealt(tape: Tensor) -> tuple[int, int, int]:
    """The last rows of an operator's tape: the order of the others follows, and another thread may read them."""
    shares, workers, team = map(int, tape[-3:, 0].tolist())
    return shares, workers, team


def _apart(tensors: Sequence[Tensor]) -> list[Tensor]:
    """No operator may give out one memory twice."""
    at: set[int] = set()
    return [t if t.data_ptr() not in at and not at.add(t.data_ptr()) else t.clone() for t in tensors]  # type: ignore[func-returns-value]


def _shapes(scan: Scan, x: Sequence[Tensor]) -> list[tuple[int, ...]]:
    graph, (T, B) = scan.derived.forward.graph, x[0].shape[:2]
    row = lambda i: extent(graph.nodes[i].shape)
    y, *every = [(T, B, *row(i)) for i in scan.kind.outputs]
    tape = [(T * B + 3, scan.taped)] if scan.taped else []  # its last rows: see _dealt
    return [y, *((B, *row(i)) for i in graph.states), *every, *tape]


@torch.library.custom_op(
    "recurra::scan", mutates_args=(), device_types="cpu", schema=f"({_ARGUMENTS}, str program) -> Tensor[]"
)
def _scan(
    x: Sequence[Tensor],
    state: Sequence[Tensor],
    initial: Sequence[Tensor],
    constants: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
    program: str,
) -> list[Tensor]:
    """The output, the last states, where asked for the states of every frame, and where there is one the tape."""
    scan = read(program)
    with torch._C._DisableAutocast():  # recurrences keep the dtype of the weights
        job, tensors = _job(scan, (x, state, initial, constants, weights), lengths, reset, look=True)
        shapes = _shapes(scan, x)
        if job is None:
            made = [torch.zeros(shape, dtype=scan.dtype) for shape in shapes]
            for last, s in zip(made[1:], tensors[len(x) : len(x) + len(state)], strict=False):
                last.copy_(s)
            return made
        if not scan.taped:
            return list(native.forward(job, tensors)[0])
        tape, frames = job.empty(*shapes[-1]), job.frames
        tape[-3:].zero_()[:, 0] = torch.tensor([frames.shares, frames.workers, frames.team])
        return [*native.forward(job, tensors, _laid(tape, job))[0], tape]


@_scan.register_fake
def _(x: Sequence[Tensor], *rest: Any) -> list[Tensor]:
    scan = read(rest[-1])
    return [x[0].new_empty(shape, dtype=scan.dtype) for shape in _shapes(scan, x)]


@torch.library.custom_op(
    "recurra::scan_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor[] grads, {_ARGUMENTS}, Tensor? tape, str program) -> Tensor[]",
)
def _scan_backward(
    grads: Sequence[Tensor],
    x: Sequence[Tensor],
    state: Sequence[Tensor],
    initial: Sequence[Tensor],
    constants: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
    tape: Tensor | None,
    program: str,
) -> list[Tensor]:
    """The gradients of what needs one, in the order of the arguments."""
    scan, parts = read(program), (x, state, initial, constants, weights)
    with torch._C._DisableAutocast():
        job, tensors = _job(scan, parts, lengths, reset, tape=tape)
        needs = [need for part in scan.needs for need in part]
        if job is None:
            found = [torch.zeros(t.shape, dtype=scan.dtype) for t in tensors]
            for s, g in zip(found[len(x) : len(x) + len(state)], grads[1:], strict=False):
                s.copy_(g)
        else:
            held = native.forward(job, tensors)[1] if tape is None else [_laid(tape, job)]
            cotangents = [g.to(scan.dtype).contiguous().resolve_neg() for g in grads]
            found = cast(list[Tensor], native.backward(job, tensors, held, cotangents))
        return _apart([g.contiguous() for g, need in zip(found, needs, strict=True) if need])


@_scan_backward.register_fake
def _(grads: Sequence[Tensor], *rest: Any) -> list[Tensor]:  # noqa: ARG001 - they come first
    scan, parts = read(rest[-1]), rest[: len(_PARTS)]
    wanted = [t for ts, needs in zip(parts, scan.needs, strict=True) for t, need in zip(ts, needs, strict=True) if need]
    return [t.new_empty(t.shape, dtype=scan.dtype) for t in wanted]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *parts, lengths, reset, program = inputs
    tape = output[-1] if read(program).taped else None
    if tape is not None:
        ctx.mark_non_differentiable(tape)
    ctx.program, ctx.sizes = program, [len(part) for part in parts]
    ctx.save_for_backward(*(t for part in parts for t in part), lengths, reset, tape)


def _gradients(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    *tensors, lengths, reset, tape = ctx.saved_tensors
    left = iter(tensors)
    parts = [[next(left) for _ in range(size)] for size in ctx.sizes]
    needs, program = [list(map(bool, part)) for part in ctx.needs_input_grad[: len(_PARTS)]], ctx.program
    if tape is not None:
        grads = grads[:-1]
    if _tuples(needs) != read(program).needs:  # it was written for inference, or for other gradients
        program, tape = _json({**json.loads(program), "needs": needs}), None
    grads = [g.contiguous() for g in grads]  # outside of the operator, so that a compiler writes them so at once
    found = iter(torch.ops.recurra.scan_backward(grads, *parts, lengths, reset, tape, program))
    return (*([next(found) if need else None for need in part] for part in needs), None, None, None)


_scan.register_autograd(_gradients, setup_context=_save)


# --- Dynamo -----------------------------------------------------------------------------------------------------------


def opaque(function: F) -> F:
    """A function of a module, and of tensors, that Dynamo takes as it is: those behind it look inside.

    Dynamo would have to follow how a step is derived, which is no computation on tensors. AOTAutograd and torch.export
    run the function with tensors that stand for others, and find the operators, and torch's own around them. What comes
    back must be tensors in plain tuples and lists.
    """
    made: list[Any] = []
    alone: list[Any] = []
    nothing = lambda v: () if v is None else v  # Dynamo has no way to hand over None
    given = lambda v: None if isinstance(v, tuple) and not v else v

    class Called(torch.nn.Module):  # for torch.func.functional_call
        def __init__(self, module: torch.nn.Module):
            super().__init__()
            self.module = module

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return function(self.module, *map(given, args), **{k: given(v) for k, v in kwargs.items()})

    def inside(modes: list[bool], weights: dict[str, Tensor], module: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG001
        return torch.func.functional_call(Called(module), {f"module.{k}": v for k, v in weights.items()}, args, kwargs)

    def ready() -> None:
        if not made:  # the import takes seconds; whoever comes here has done it
            from torch._dynamo import nonstrict_trace

            made.append(nonstrict_trace(inside))

    ready._dynamo_marked_constant = True  # type: ignore[attr-defined] # Dynamo calls it, as it is, when it compiles

    @functools.wraps(function)
    def call(module: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            ready()
            # What Dynamo does not follow it does not guard: modes are handed over, so that a change of one is seen. It
            # hands over a module with its weights, but a shared one under one of its names only.
            modes = [m.training for m in module.modules()]
            weights = dict(module.named_parameters(remove_duplicate=False))
            return made[0](modes, weights, module, *map(nothing, args), **{k: nothing(v) for k, v in kwargs.items()})
        if torch._C._dynamo.eval_frame.get_eval_frame_callback() not in (None, False):
            # Dynamo's graph broke at the module (an heir of torch.nn.LSTM): it would now try each function by itself.
            if not alone:
                alone.append(torch.compiler.disable(function))
            return alone[0](module, *args, **kwargs)
        return function(module, *args, **kwargs)

    return cast(F, call)


__all__ = ["Scan", "opaque", "read", "run", "text_of", "written"]
