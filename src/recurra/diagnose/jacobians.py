"""The derivative of a state for the one before it, along real data."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from recurra.diagnose.flow import Moved
from recurra.diagnose.runs import Run, runs_of
from recurra.shapes import numel
from recurra.train.strict_json import without_nan

_NUMBERS = 2**23  # of all Jacobians together


@dataclass(frozen=True)
class Jacobians:
    r"""Singular values of :math:`\partial s_t/\partial s_{t-1}`, s being all of the state, at frames drawn from data.

    Attributes:
        name: the layer and direction.
        points: at how many frames; those where a state overflowed are left out.
        largest, mean: the largest, and the mean, singular value of each of them.
        radius: the largest absolute eigenvalue of each of them.
        times: for each leaf of the state the time constant of each unit, in frames: the -1 / log of the mean of
            :math:`\lvert\partial s_t^i/\partial s_{t-1}^i\rvert`, which in gated cells is that of the forget gate.
    """

    name: str
    points: int
    largest: list[float]
    mean: list[float]
    radius: list[float]
    times: dict[str, list[float]]

    def as_json(self) -> dict[str, Any]:
        """Its numbers, as JSON holds them: no infinity."""
        numbers: dict[str, Any] = without_nan(asdict(self))
        return numbers


def jacobians(model: Any, *inputs: Any, points: int = 64, seed: int = 0, **keywords: Any) -> list[Jacobians]:
    """The Jacobians of each layer and direction of a model, at frames of its data.

    Args:
        model, inputs, keywords: as :func:`~recurra.diagnose.gradient_flow` takes them.
        points: frames, drawn at random; fewer where states are so wide that this would take gigabytes.
        seed: of which.

    Example:
        >>> import recurra
        >>> cell = recurra.RNNCell(3, 8)
        >>> with torch.no_grad():
        ...     _ = torch.nn.init.orthogonal_(cell.weight_hh, gain=0.5)
        >>> (found,) = jacobians(cell, torch.zeros(4, 1, 3))
        >>> round(max(found.largest), 3), round(min(found.mean), 3)
        (0.5, 0.5)
    """
    return [jacobians_of(run, points=points, seed=seed) for run in runs_of(model, *inputs, **keywords)]


def jacobians_of(run: Run, *, points: int = 64, seed: int = 0) -> Jacobians:
    """:func:`jacobians` of one run."""
    cell, shapes = Moved(run.cell).eval(), run.cell.state_shapes
    sizes = [numel(shape) for shape in shapes.values()]
    most = max(1, min(points, _NUMBERS // sum(sizes) ** 2))
    x, state, constants = run.points(most, torch.Generator().manual_seed(seed))
    by = state[0].new_zeros(len(state[0]), sum(sizes)).requires_grad_()  # (N, Z)
    with torch.enable_grad():
        fixed = (cell.Constants(*constants),) if cell.Constants else ()
        _, new = cell.step(cell.Input(*x, by), cell.State(*state), *fixed)  # type: ignore[misc]  # it has an Input
        # Number by number of the new state, all points at once. Not by vmap: it runs no step that branches on a value
        # or draws at random.
        numbers = torch.cat([leaf.flatten(1) for leaf in new], 1).sum(0)
        found = torch.stack([_derivative(number, by) for number in numbers], 1).double()  # (N, Z, Z)
    found = found[found.isfinite().flatten(1).all(1)]
    values = torch.linalg.svdvals(found)
    diagonal = found.diagonal(dim1=1, dim2=2).abs().mean(0).split(sizes)
    return Jacobians(
        run.name,
        len(found),
        values[:, 0].tolist(),
        values.mean(1).tolist(),
        torch.linalg.eigvals(found).abs().amax(1).tolist(),
        {leaf: [_time(a) for a in kept.tolist()] for leaf, kept in zip(shapes, diagonal, strict=True)},
    )


def _derivative(y: Tensor, x: Tensor) -> Tensor:
    if not y.requires_grad:  # of a step that reads no state
        return torch.zeros_like(x)
    return torch.autograd.grad(y, x, retain_graph=True, materialize_grads=True)[0]


def _time(kept: float) -> float:
    return math.inf if kept >= 1 else 0.0 if kept <= 0 else -1 / math.log(kept)
