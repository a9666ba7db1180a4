"""What a model runs over time: each scan of each recurrent layer in it, made to run forward."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from recurra.cells import Cell
from recurra.engine import options, requests, scan
from recurra.engine.request import Request
from recurra.errors import DataError, DivergedError, NaNInputError, OptionError
from recurra.layers import GRU, LSTM, RNN, Recurrent
from recurra.layers.accelerate import accelerate

Leaves = tuple[Tensor, ...]


@dataclass(frozen=True)
class Run:
    """One scan: a cell over data, frames in the order in which the cell meets them.

    Attributes:
        name: the layer, and its direction where it has two.
        cell: in evaluation, its weights without gradients.
        x: leaves ``(T, B, ...)``. state: before the first frame, leaves ``(B, ...)``.
        constants: leaves ``(B, ...)``, where the cell declares them.
        lengths: ``(B,)`` valid frames. reset: ``(T, B)``, where segments begin, or None.
    """

    name: str
    cell: Cell[Any]
    x: Leaves
    state: Leaves
    constants: Leaves
    lengths: Tensor
    reset: Tensor | None = None

    @property
    def T(self) -> int:
        """Frames."""
        return self.x[0].shape[0]

    def scan(self, cell: Cell[Any], x: Leaves, state: Leaves, rows: Tensor | None = None, **arguments: Any) -> Any:
        """A scan of `cell`, this run's or one around it, on these rows' constants."""
        fixed = self.constants if rows is None else tuple(c[rows] for c in self.constants)
        return scan(
            cell,
            x[0] if cell.Input is None else cell.Input(*x),
            cell.State(*state),
            constants=cell.Constants(*fixed) if cell.Constants else None,
            **arguments,
        )

    @cached_property
    def states(self) -> Leaves:
        """The state before each frame, and after the last: leaves ``(T + 1, B, ...)``."""
        with torch.no_grad(), options(check_nan=False):
            _, _, after = self.scan(
                self.cell, self.x, self.state, lengths=self.lengths, reset=self.reset, return_states=True
            )
        return tuple(torch.cat([s[None], a]) for s, a in zip(self.state, after, strict=True))

    def points(self, most: int, generator: torch.Generator) -> tuple[Leaves, Leaves, Leaves]:
        """Frames of data drawn at random: ``(x, state before, constants)``, leaves ``(N, ...)``."""
        valid = (torch.arange(self.T)[:, None] < self.lengths).nonzero()
        chosen = valid[torch.randperm(len(valid), generator=generator)[:most]]
        t, b = chosen.unbind(1)
        return tuple(v[t, b] for v in self.x), tuple(s[t, b] for s in self.states), tuple(c[b] for c in self.constants)


def run_of(request: Request, name: str) -> Run:
    """A request as a run forward in time."""
    cell = request.cell.bound({k: w.detach() for k, w in request.leaves.items()})
    x, T = tuple(v.detach() for v in request.x), request.T
    lengths = torch.full((request.B,), T) if request.lengths is None else request.lengths.cpu()
    reset = request.reset
    if request.reverse:
        frames = (lengths - 1 - torch.arange(T)[:, None]) % T  # (T, B) padding reads what is never used
        frames = frames.to(x[0].device)
        x = tuple(v.gather(0, frames.reshape(T, -1, *[1] * (v.dim() - 2)).expand_as(v)) for v in x)
        if reset is not None:  # it stood between t and t - 1
            reset = torch.cat([reset.new_zeros(1, request.B), reset.gather(0, frames)[:-1]])
    detached = lambda leaves: tuple(v.detach() for v in leaves)
    return Run(name, cell, x, detached(request.state), detached(request.constants), lengths, reset)


def runs_of(model: Any, *inputs: Any, **keywords: Any) -> list[Run]:
    """Each recurrent layer and direction of a model, with the data that reached it.

    Args:
        model: a :class:`~recurra.Cell`, or any module that holds :class:`~recurra.Recurrent`, our drop-ins, or
            torch.nn's RNN, LSTM or GRU. It is called once, in evaluation, and left as it was.
        inputs, keywords: what it is called with; of a cell, ``x (T, B, D)`` and what :func:`recurra.scan` takes.

    Raises:
        OptionError: there is no recurrent layer. DataError: no frame is valid. DivergedError: weights are not finite.
        NaNInputError: nor is what a layer is given.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 5), nn.LSTM(5, 4, num_layers=2, batch_first=True))
        >>> [run.name for run in runs_of(model, torch.zeros(2, 7, 3))]
        ['1 layer 1', '1 layer 2']
    """
    if isinstance(model, Cell):
        with torch.no_grad(), requests() as seen, _evaluating(model):
            scan(model, *inputs, **keywords)
        found = [run_of(seen[0], type(model).__name__)]
    else:
        found = [run for path, module, call in _calls(model, inputs, keywords) for run in _runs(path, module, call)]
    if not found:
        raise OptionError(
            "there is no recurrent layer here that Recurra knows",
            received=type(model).__name__,
            instead="a model that holds recurra.Recurrent, or torch.nn's RNN, LSTM or GRU, and calls it",
        )
    if not any(int(run.lengths.sum()) for run in found):
        raise DataError("there is nothing to look at: all sequences are empty")
    _require_finite(found)
    return found


def _require_finite(runs: Sequence[Run]) -> None:
    """Raise where weights or inputs are NaN or infinite. Where a state overflows is for the diagnosis to say."""
    finite = lambda leaves: all(bool(leaf.isfinite().all()) for leaf in leaves)
    for k, run in enumerate(runs):
        for name, weight in run.cell.state_dict().items():
            if not finite([weight]):
                raise DivergedError(
                    f"{run.name} has weights that are NaN or infinite",
                    received=name,
                    instead="the weights of an earlier step: the training has diverged",
                )
        valid = torch.arange(run.T)[:, None] < run.lengths  # (T, B); padding may hold anything
        if not finite(v[valid] for v in run.x) and all(finite(before.states) for before in runs[:k]):
            raise NaNInputError(
                f"{run.name} is given NaN or infinities",
                instead="finite inputs, and finite weights in front of the layer",
            )


Call = Callable[[nn.Module], Any]


def _calls(model: nn.Module, inputs: Sequence[Any], keywords: dict[str, Any]) -> list[tuple[str, nn.Module, Call]]:
    """The first call of each recurrent layer: its path, itself, and how to call one like it again."""
    made: dict[nn.Module, tuple[str, list[Any]]] = {}
    hooks = []
    for path, module in model.named_modules():
        if isinstance(module, nn.RNNBase | Recurrent):

            def keep(m: nn.Module, args: Any, kwargs: Any, output: Any, path: str = path) -> None:
                made.setdefault(m, (path, []))[1].append((args, kwargs, output[1]))

            hooks.append(module.register_forward_hook(keep, with_kwargs=True))
    try:
        with torch.no_grad(), _evaluating(model):
            model(*inputs, **keywords)
    finally:
        for hook in hooks:
            hook.remove()
    return [(path, module, _joined(module, calls)) for module, (path, calls) in made.items()]


def _joined(module: Any, calls: Sequence[Any]) -> Call:
    """The first call, with those after it that each went on from where the one before ended: loops over frames."""
    args, kwargs, last = calls[0]
    pieces = [*args[:1]]
    for (x, *state), named, after in calls[1:] if args and isinstance(args[0], Tensor) and not kwargs else ():
        if named or len(state) != 1 or state[0] is not last:
            break
        pieces.append(x)
        last = after
    if len(pieces) > 1:
        args = (torch.cat(pieces, 1 if module.batch_first and pieces[0].dim() > 2 else 0), *args[1:])
    return lambda twin: twin(*args, **kwargs)


def _runs(path: str, module: nn.Module, call: Call) -> Iterator[Run]:
    twin = copy.copy(module)  # torch's layers become ours, on the same weights
    twin._forward_pre_hooks, twin._forward_hooks = {}, {}
    if not isinstance(module, Recurrent | RNN | LSTM | GRU):
        for why in accelerate(twin, only_if_faster=False).left.values():
            raise OptionError(f"{path or 'the model'} cannot be looked into: {why}")
    with torch.no_grad(), requests() as seen, _evaluating(twin), options(executor="auto", save="all", check_nan=False):
        call(twin)
    layer = 0
    both = any(request.reverse for request in seen)
    for request in seen:
        layer += not request.reverse
        direction = f", {'backward' if request.reverse else 'forward'}" if both else ""
        yield run_of(request, f"{path} layer {layer}{direction}".strip())


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation, every part as it was afterwards."""
    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in before:
            m.training = training


def first_rows(run: Run, most: int) -> Run:
    """The same run of fewer sequences, the longest first."""
    rows = run.lengths.argsort(descending=True, stable=True)[:most]
    pick = lambda leaves, axis: tuple(v.index_select(axis, rows.to(v.device)) for v in leaves)
    reset = None if run.reset is None else run.reset[:, rows.to(run.reset.device)]
    made = replace(run, x=pick(run.x, 1), state=pick(run.state, 0), constants=pick(run.constants, 0), reset=reset)
    return replace(made, lengths=run.lengths[rows])
