"""Which executor runs a scan, why, and why not the others: printable data."""

import contextvars
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from recurra.cells import Cell
from recurra.cells.base import autocasts
from recurra.engine import native, operator, reference, staged, vendor
from recurra.engine.derive import derive
from recurra.engine.options import current_options
from recurra.engine.request import Request, Result, check_nan
from recurra.errors import ExecutorError, UnderivableStepError, UnknownNameError
from recurra.steps.stages import Linearity


@dataclass(frozen=True)
class Executor:
    """A way to run a scan. A refusal is a sentence; an empty one means that it can run."""

    name: str
    what: str
    refusal: Callable[[Request], str]
    run: Callable[[Request, str | int], Result]
    dearer: Callable[[Request], str] = lambda request: ""  # why `auto` does better with a later one, though it can run
    looks: bool = False  # for NaN in inputs, while it reads them


def _transformed() -> str:
    """Who derives in another way than the engine does; empty where nobody does."""
    if torch._C._are_functorch_transforms_active():
        return "inside of torch.func, which transforms the plain loop"
    if forward_ad._current_level >= 0:
        return "inside of torch.autograd.forward_ad, whose tangents go through the plain loop"
    return ""


def _mixed(request: Request) -> str:
    """A state whose dtype only the plain loop keeps; autocast makes floats one dtype before any run."""
    x = request.x[0]
    for s in request.state:
        if s.dtype is not x.dtype and not (s.is_floating_point() and autocasts(x.device.type)):
            return f"a state in {s.dtype} beside an input in {x.dtype}"
    return ""


def _staged_refusal(request: Request) -> str:
    if why := _transformed():
        return why
    if why := _mixed(request):
        return why
    if isinstance(request.derivation, UnderivableStepError):
        return str(request.derivation).splitlines()[0] + f" ({_received(request.derivation)})"
    return ""


def _native_refusal(request: Request) -> str:
    return native.refusal(request) or _staged_refusal(request)


def _associative_refusal(request: Request) -> str:
    if why := _staged_refusal(request):
        return why
    if request.derived.forward.staged.linearity is not Linearity.DIAGONAL:
        return "the recurrence is not linear in its state, unit by unit"
    return "" if request.T and request.B else "there is no frame to run"


# On a CPU the loop costs some 40 µs of calls a frame, and solving all frames at once about twice as many passes over
# memory: measured at 8 to 1,000 frames and 64 to 32,768 numbers of a state for the whole batch.
_FEWEST_FRAMES, _WIDEST_STATE = 48, 1024


def _associative_dearer(request: Request) -> str:
    if request.T < _FEWEST_FRAMES:
        return f"the loop is cheaper below {_FEWEST_FRAMES} frames"
    width = sum(s.numel() for s in request.state)
    if request.x[0].device.type == "cpu" and width > _WIDEST_STATE:
        return f"the loop is cheaper on a CPU where the states of a batch hold more than {_WIDEST_STATE} numbers"
    return ""


def _received(error: UnderivableStepError) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return next(
        (line.removeprefix("received:").strip() for line in lines if line.startswith("received:")), "see its message"
    )


def _vendor_refusal(request: Request) -> str:
    if why := _transformed():
        return why
    if current_options().save != "all":
        return "torch.nn keeps everything that its backward pass needs"
    return vendor.refusal(request)


# Fastest first: `auto` takes the first that does not refuse.
EXECUTORS: dict[str, Executor] = {
    e.name: e
    for e in (
        Executor("native", "the native machine, forward and backward", _native_refusal, operator.run, looks=True),
        Executor("torch", "the kernels behind torch.nn", _vendor_refusal, vendor.run),
        Executor(
            "associative",
            "the stages, with the recurrence solved in parallel over time",
            _associative_refusal,
            lambda r, save: staged.run(r, save, parallel=True),
            _associative_dearer,
        ),
        Executor("staged", "the derived stages in torch operations", _staged_refusal, staged.run),
        Executor("reference", "the plain loop over cell.step", lambda request: "", lambda r, save: reference.run(r)),
    )
}


def executors() -> tuple[str, ...]:
    """The names of the executors, fastest first.

    Example:
        >>> executors()
        ('native', 'torch', 'associative', 'staged', 'reference')
    """
    return tuple(EXECUTORS)


@dataclass(frozen=True)
class Plan:
    """Which executor runs a scan, and the reasons.

    Attributes:
        executor: its name.
        reason: why it is this one.
        against: for each other executor, why it is not that one.
        save: what is kept for the backward pass.
    """

    executor: str
    reason: str
    against: dict[str, str] = field(default_factory=dict)
    save: str | int = "all"

    def __str__(self) -> str:
        rows = [f"plan    {self.executor}, because {self.reason}"]
        rows += [f"        not {name}: {why}" for name, why in self.against.items()]
        return "\n".join(rows)


def choose(request: Request) -> tuple[Executor, dict[str, str]]:
    """The executor of a checked request under the options in force, and why it is none of those before it.

    Raises:
        UnknownNameError: the options name no executor. UnderivableStepError, ExecutorError: the one they name refuses.
    """
    named, weights = current_options().executor, request.weights
    if weights != "float":
        why = _native_refusal(request) if named in ("auto", "native") else f"the options choose {named}"
        if why:
            raise ExecutorError(
                f"weights={weights!r} need the native machine: {why}", received=type(request.cell).__name__
            )
        return EXECUTORS["native"], {}
    against: dict[str, str] = {}
    if named == "auto":
        for executor in EXECUTORS.values():
            why = executor.refusal(request) or executor.dearer(request)
            if not why:
                return executor, against
            against[executor.name] = why
        raise AssertionError("the reference never refuses")
    if named not in EXECUTORS:
        raise UnknownNameError("executor", named, ("auto", *EXECUTORS))
    if why := EXECUTORS[named].refusal(request):
        if named == "staged":
            derive(request.cell)  # raises with the operation and the source line
        raise ExecutorError(
            f"the executor {named!r} cannot run this: {why}",
            received=f"{type(request.cell).__name__}, options(executor={named!r})",
            instead='executor="auto"',
        )
    return EXECUTORS[named], against


def plan(request: Request) -> Plan:
    """:func:`choose`, with a reason against each other executor."""
    chosen, against = choose(request)
    options = current_options()
    if options.executor != "auto":
        return Plan(chosen.name, "the options say so", save=options.save)
    for other in EXECUTORS.values():
        if other is not chosen and other.name not in against:
            against[other.name] = other.refusal(request) or other.dearer(request) or f"slower: {other.what}"
    return Plan(chosen.name, f"it is {chosen.what}, the fastest here that can", against, options.save)


_WARNED: set[type[Cell[Any]]] = set()
_SEEN: contextvars.ContextVar[list[Request] | None] = contextvars.ContextVar("recurra_requests", default=None)


@contextmanager
def requests() -> Iterator[list[Request]]:
    """A list of what is asked of the engine inside of a ``with`` block, in order.

    Example:
        >>> import recurra, torch
        >>> with requests() as seen:
        ...     y, state = recurra.Recurrent("gru", 3, 4, bidirectional=True)(torch.zeros(2, 5, 3))
        >>> [(type(request.cell).__name__, request.T, request.reverse) for request in seen]
        [('GRUCell', 5, False), ('GRUCell', 5, True)]
    """
    found: list[Request] = []
    token = _SEEN.set(found)
    try:
        yield found
    finally:
        _SEEN.reset(token)


def execute(request: Request) -> Result:
    """Run a checked request by its plan."""
    seen = _SEEN.get()
    if seen is not None:
        seen.append(request)
    executor, _ = choose(request)
    if request.look and not executor.looks:
        check_nan(request.x, request.lengths)
    options, kind = current_options(), type(request.cell)
    if executor.name == "reference" and options.executor == "auto" and kind not in _WARNED:
        refusal = request.derivation
        if isinstance(refusal, UnderivableStepError):
            _WARNED.add(kind)  # once a class: a warning a call would drown the rest
            warnings.warn(
                f"{kind.__name__} runs in the plain loop, which is slow: {_received(refusal)}. "
                "recurra.explain(cell) says more.",
                stacklevel=3,
            )
    device = request.x[0].device.type
    if autocasts(device):
        weight = next(request.cell.parameters(), None)
        dtype = request.x[0].dtype if weight is None else weight.dtype
        cast = lambda leaves: tuple(v.to(dtype) if v.is_floating_point() else v for v in leaves)
        request = request.replace(x=cast(request.x), state=cast(request.state), constants=cast(request.constants))
        if request.weights == "float" and dtype is torch.float32 and torch.get_autocast_dtype(device) is torch.bfloat16:
            request = request.replace(weights="bfloat16")
        with torch.autocast(device, enabled=False):  # sums and states keep the weights' dtype: many frames need it
            return executor.run(request, options.save)
    return executor.run(request, options.save)


def plan_for(
    cell: Cell[Any],
    x: Any,
    state: Any = None,
    *,
    constants: Any = None,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_states: bool = False,
) -> Plan:
    """How :func:`recurra.scan` would run with these arguments, without running it.

    Example:
        >>> import recurra, torch
        >>> cell, x = recurra.LSTMCell(3, 4), torch.zeros(5, 2, 3)
        >>> plan_for(cell, x).executor
        'native'
        >>> print(plan_for(cell, x, reset=torch.zeros(5, 2, dtype=torch.bool)))
        plan    native, because it is the native machine, forward and backward, the fastest here that can
                not torch: torch.nn cannot reset inside of a sequence
                not associative: the recurrence is not linear in its state, unit by unit
                not staged: slower: the derived stages in torch operations
                not reference: slower: the plain loop over cell.step
    """
    from recurra.engine.scan import make_request  # scan runs plans

    return plan(make_request(cell, x, state, constants, lengths, reset, reverse, return_states))
