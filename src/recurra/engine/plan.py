"""Which executor runs a scan, why, and why not the others: printable data."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from recurra.cells import Cell
from recurra.engine import reference, staged, vendor
from recurra.engine.derive import derive
from recurra.engine.options import current_options
from recurra.engine.request import Request, Result
from recurra.errors import ExecutorError, UnderivableStepError, UnknownNameError
from recurra.steps.stages import Linearity


@dataclass(frozen=True)
class Executor:
    """A way to run a scan. A refusal is a sentence; an empty one means that it can run."""

    name: str
    what: str
    refusal: Callable[[Request], str]
    run: Callable[[Request, str | int], Result]


def _staged_refusal(request: Request) -> str:
    if torch._C._are_functorch_transforms_active():
        return "inside of torch.func, which transforms the plain loop"
    try:
        derive(request.cell)
    except UnderivableStepError as refusal:
        return str(refusal).splitlines()[0] + f" ({_received(refusal)})"
    return ""


def _associative_refusal(request: Request) -> str:
    if why := _staged_refusal(request):
        return why
    if derive(request.cell).forward.staged.linearity is not Linearity.DIAGONAL:
        return "the recurrence is not linear in its state, unit by unit"
    if not request.T or not request.B:
        return "there is no frame to run"
    return ""


def _received(error: UnderivableStepError) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return next(
        (line.removeprefix("received:").strip() for line in lines if line.startswith("received:")), "see its message"
    )


def _vendor_refusal(request: Request) -> str:
    if torch._C._are_functorch_transforms_active():
        return "inside of torch.func, which torch's kernels do not know"
    if current_options().save != "all":
        return "torch.nn keeps everything that its backward pass needs"
    return vendor.refusal(request)


# Fastest first: `auto` takes the first that does not refuse.
EXECUTORS: dict[str, Executor] = {
    e.name: e
    for e in (
        Executor("torch", "the kernels behind torch.nn", _vendor_refusal, vendor.run),
        Executor(
            "associative",
            "the stages, with the recurrence solved in parallel over time",
            _associative_refusal,
            lambda r, save: staged.run(r, save, parallel=True),
        ),
        Executor("staged", "the derived stages in torch operations", _staged_refusal, staged.run),
        Executor("reference", "the plain loop over cell.step", lambda request: "", lambda r, save: reference.run(r)),
    )
}


def executors() -> tuple[str, ...]:
    """The names of the executors, fastest first.

    Example:
        >>> executors()
        ('torch', 'staged', 'reference')
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


def plan(request: Request) -> Plan:
    """The plan of a checked request under the options in force.

    Raises:
        UnknownNameError: the options name no executor. UnderivableStepError, ExecutorError: the one they name refuses.
    """
    chosen = current_options()
    save = chosen.save
    if chosen.executor != "auto":
        if chosen.executor not in EXECUTORS:
            raise UnknownNameError("executor", chosen.executor, ("auto", *EXECUTORS))
        why = EXECUTORS[chosen.executor].refusal(request)
        if why and chosen.executor == "staged":
            derive(request.cell)  # raises with the operation and the source line
        if why:
            raise ExecutorError(
                f"the executor {chosen.executor!r} cannot run this: {why}",
                received=f"{type(request.cell).__name__}, options(executor={chosen.executor!r})",
                instead='executor="auto"',
            )
        return Plan(chosen.executor, "the options say so", save=save)
    against: dict[str, str] = {}
    for name, executor in EXECUTORS.items():
        why = executor.refusal(request)
        if not why:
            slower = list(EXECUTORS.values())[len(against) + 1 :]
            against |= {other.name: f"slower: {other.what}" for other in slower}
            return Plan(name, f"it is {executor.what}, the fastest here that can", against, save)
        against[name] = why
    raise AssertionError("the reference never refuses")


_WARNED: set[type[Cell[Any]]] = set()


def execute(request: Request) -> Result:
    """Run a checked request by its plan."""
    made = plan(request)
    kind = type(request.cell)
    if made.executor == "reference" and current_options().executor == "auto" and kind not in _WARNED:
        try:
            derive(request.cell)
        except UnderivableStepError as refusal:
            _WARNED.add(kind)  # once a class: a warning a call would drown the rest
            warnings.warn(
                f"{kind.__name__} runs in the plain loop, which is slow: {_received(refusal)}. "
                "recurra.explain(cell) says more.",
                stacklevel=3,
            )
    device = request.x[0].device.type
    if torch.is_autocast_enabled(device):
        weight = next(request.cell.parameters(), None)
        dtype = request.x[0].dtype if weight is None else weight.dtype
        cast = lambda leaves: tuple(v.to(dtype) if v.is_floating_point() else v for v in leaves)
        request = request.replace(x=cast(request.x), state=cast(request.state), constants=cast(request.constants))
        with torch.autocast(device, enabled=False):  # recurrences keep the weights' dtype: sums over time need it
            return EXECUTORS[made.executor].run(request, made.save)
    return EXECUTORS[made.executor].run(request, made.save)


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
        'torch'
        >>> print(plan_for(cell, x, reset=torch.zeros(5, 2, dtype=torch.bool)))
        plan    staged, because it is the derived stages in torch operations, the fastest here that can
                not torch: torch.nn cannot reset inside of a sequence
                not reference: slower: the plain loop over cell.step
    """
    from recurra.engine.scan import make_request  # scan runs plans

    return plan(make_request(cell, x, state, constants, lengths, reset, reverse, return_states))
