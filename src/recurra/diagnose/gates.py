"""Whether gates still move, units still live, and states stay within bounds."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from recurra.diagnose.runs import Run, runs_of
from recurra.train.strict_json import without_nan

_POINTS = 2048  # frames that gates are looked at in
_SQUASH = {
    torch.ops.aten.sigmoid.default: ("sigmoid", 0.0, 1.0),
    torch.ops.aten.sigmoid_.default: ("sigmoid", 0.0, 1.0),
    torch.ops.aten.tanh.default: ("tanh", -1.0, 1.0),
    torch.ops.aten.tanh_.default: ("tanh", -1.0, 1.0),
}
_EDGE = 1e-3  # of the range: nearer to an end, the derivative is 1/250 of the largest, or less
_STILL = 1e-4  # a unit that moves by less, relative to the typical unit, is dead


@dataclass(frozen=True)
class Gates:
    """What a cell's gates, units and states do on data.

    Attributes:
        name: the layer and direction.
        low, high: for each sigmoid and tanh of the step, in its order, the part of its values within 0.1 % of its
            range's lower and upper end, where next to no gradient passes.
        dead: for each leaf of the state the part of units that do not move.
        norms: for each leaf the root mean square of its numbers, frame by frame.
        growth: for each leaf the last tenth's norm in units of the second tenth's.
    """

    name: str
    low: dict[str, float]
    high: dict[str, float]
    dead: dict[str, float]
    norms: dict[str, list[float]]
    growth: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Its numbers, as JSON holds them: no infinity."""
        numbers: dict[str, Any] = without_nan(asdict(self))
        return numbers


class _Watch(TorchDispatchMode):
    """Notes the values of squashing functions, in the order in which they are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[tuple[str, Tensor]] = []  # in units of the range

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _SQUASH:
            name, low, high = _SQUASH[func]
            self.values.append((name, (out.detach().double() - low) / (high - low)))
        return out


def gates(model: Any, *inputs: Any, seed: int = 0, **keywords: Any) -> list[Gates]:
    """The gates of each layer and direction of a model, on its data.

    Args:
        model, inputs, keywords: as :func:`~recurra.diagnose.gradient_flow` takes them.
        seed: of the frames that are looked at.

    Example:
        >>> import recurra
        >>> (found,) = gates(recurra.GRUCell(3, 8), torch.randn(20, 4, 3))
        >>> list(found.low), found.dead
        (['sigmoid 1', 'tanh 1'], {'h': 0.0})
    """
    return [gates_of(run, seed=seed) for run in runs_of(model, *inputs, **keywords)]


def gates_of(run: Run, *, seed: int = 0) -> Gates:
    """:func:`gates` of one run."""
    cell = run.cell
    x, state, constants = run.points(_POINTS, torch.Generator().manual_seed(seed))
    with torch.no_grad(), _Watch() as watch:
        fixed = (cell.Constants(*constants),) if cell.Constants else ()
        cell.step(x[0] if cell.Input is None else cell.Input(*x), cell.State(*state), *fixed)
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for kind, value in watch.values:
        name = f"{kind} {1 + sum(k.startswith(kind) for k in low)}"
        low[name], high[name] = float((value < _EDGE).double().mean()), float((value > 1 - _EDGE).double().mean())
    dead: dict[str, float] = {}
    norms: dict[str, list[float]] = {}
    growth: dict[str, float] = {}
    valid = torch.arange(run.T)[:, None] < run.lengths  # (T, B)
    for leaf, values in zip(cell.state_shapes, run.states, strict=True):
        after = values[1:].double().flatten(2).cpu()
        moved = after[valid].std(0, correction=0) if int(valid.sum()) > 1 else after[valid].abs().mean(0)
        dead[leaf] = float((moved <= _STILL * moved.median()).double().mean())
        square = torch.where(valid, after.square().mean(2), 0.0).sum(1) / valid.sum(1).clamp_min(1)
        norms[leaf] = square[: int(run.lengths.max())].sqrt().tolist()
        growth[leaf] = _growth(norms[leaf])
    return Gates(run.name, low, high, dead, norms, growth)


def _growth(norms: list[float]) -> float:
    tenth = max(1, len(norms) // 10)
    mean = lambda part: sum(part) / max(1, len(part))
    early, late = mean(norms[tenth : 2 * tenth] or norms[:1]), mean(norms[-tenth:])
    if not math.isfinite(late):
        return math.inf
    return late / early if early > 0 else 1.0
