"""How a gradient fares on its way back through time."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

from recurra.cells import Cell
from recurra.cells.wrap import Wrapper
from recurra.diagnose.runs import Run, first_rows, runs_of
from recurra.engine import options
from recurra.errors import OptionError
from recurra.shapes import numel
from recurra.train.strict_json import without_nan

VANISHED, EXPLODED = 1e-3, 10.0  # what is left of a gradient's norm over all frames
_NUMBERS = 2**22  # of the largest tensor that one pass makes: the next pass finds its memory warm
SMALLEST = 1e-30  # norms below are rounding


@dataclass(frozen=True)
class Flow:
    r"""How large a gradient still is k frames back.

    .. math::
        \mathrm E\,\lVert(\partial s_t/\partial s_{t-k})^\top v\rVert

    s is all of the state, v a random direction of length 1; the mean is over anchor frames t, sequences and v.

    Attributes:
        name: the layer and direction.
        lags: k, from 1. norms: the mean norm at each. low, high: its quartiles.
        decay_per_frame: the factor by which the norm changes from frame to frame: least squares on its logarithm.
        half_life: frames in which half of it is gone; infinite where it does not shrink.
        reach: what is left over all frames that were looked at, of the fitted line; infinite where a norm is.
        verdict: ``"vanishing"`` where less than 1/1000 is left, ``"exploding"`` where it grows tenfold, ``"healthy"``.
        horizon: the farthest frame whose *input* still moves the output by 1 % of what the one that moves it most does.
        input_norms: the same norms of the output's derivative for the input, from lag 0.
    """

    name: str
    lags: list[int]
    norms: list[float]
    low: list[float]
    high: list[float]
    decay_per_frame: float
    half_life: float
    reach: float
    verdict: str
    horizon: int
    input_norms: list[float]

    def as_json(self) -> dict[str, Any]:
        """Its numbers, as JSON holds them: no infinity."""
        numbers: dict[str, Any] = without_nan(asdict(self))
        return numbers


class Moved(Wrapper):
    """A cell whose state is moved by an input before each step: the derivative for that input is the state's."""

    def __init__(self, cell: Cell[Any]):
        hints = get_type_hints(cell.Input, include_extras=True) if cell.Input else {"x": Tensor}
        self.Input = NamedTuple("Moved", [*hints.items(), ("by", Annotated[Tensor, "Z"])])  # type: ignore[misc, assignment]
        super().__init__(cell, Z=sum(numel(shape) for shape in cell.state_shapes.values()))

    def step(self, x: Any, state: Any, *constants: Any) -> tuple[Tensor, Any]:
        """The inner cell's, from ``state + x.by``."""
        *leaves, by = x
        parts = by.split([numel(shape) for shape in self.state_shapes.values()], -1)
        moved = self.State(*(s + part.reshape(s.shape) for s, part in zip(state, parts, strict=True)))
        given = leaves[0] if self.cell.Input is None else self.cell.Input(*leaves)
        return self.cell.step(given, moved, *constants)


def gradient_flow(
    model: Any,
    *inputs: Any,
    anchors: int | None = 16,
    max_lag: int | None = None,
    sequences: int = 16,
    seed: int = 0,
    **keywords: Any,
) -> list[Flow]:
    """How far gradients reach, layer by layer and direction by direction.

    From each of several frames of each sequence a random direction of the state goes back through time. All of them go
    at once, as rows of one batch, through the engine's own backward pass.

    Args:
        model: a cell, or any module that holds recurrent layers, torch.nn's too.
        inputs, keywords: what it is called with; of a cell ``x (T, B, D)``, as :func:`recurra.scan` takes it.
        anchors: frames of each sequence from which to look back, spread evenly, its last one among them; None: all.
        max_lag: look back so many frames at most.
        sequences: at most so many of the batch, the longest.
        seed: of the random directions.

    Raises:
        OptionError: no recurrent layer, or a number out of range. DataError: no frames.

    Example:
        >>> import recurra
        >>> _ = torch.manual_seed(0)
        >>> cell = recurra.RNNCell(3, 32)
        >>> with torch.no_grad():
        ...     _ = torch.nn.init.orthogonal_(cell.weight_hh, gain=0.7)
        >>> (flow,) = gradient_flow(cell, 0.01 * torch.randn(70, 4, 3))
        >>> flow.verdict, round(flow.decay_per_frame, 2)
        ('vanishing', 0.7)
    """
    runs = runs_of(model, *inputs, **keywords)
    return [flow_of(run, anchors=anchors, max_lag=max_lag, sequences=sequences, seed=seed) for run in runs]


def flow_of(
    run: Run, *, anchors: int | None = 16, max_lag: int | None = None, sequences: int = 16, seed: int = 0
) -> Flow:
    """:func:`gradient_flow` of one run."""
    for name, value in (("anchors", anchors), ("max_lag", max_lag), ("sequences", sequences)):
        if value is not None and value < 1:
            raise OptionError(f"{name} must be at least 1", received=repr(value))
    run = first_rows(run, sequences)
    rng = torch.Generator().manual_seed(seed)
    places = _anchors(run, anchors)
    longest = min(int(places[:, 0].max()), max_lag or run.T)
    if longest < 1:
        raise OptionError("gradients flow from frame to frame: at least two are needed", received=f"T = {run.T}")
    width = sum(s[0].numel() for s in run.state)
    directions = torch.nn.functional.normalize(torch.randn(len(places), width, generator=rng), dim=1)
    norms = torch.full((longest, len(places)), math.nan, dtype=torch.float64)  # a row a lag, from 1
    moves = torch.full((longest + 1, len(places)), math.nan, dtype=torch.float64)
    cell = Moved(run.cell).eval()
    per_pass = max(1, _NUMBERS // (longest * max(width, sum(v[0, 0].numel() for v in run.x))))
    for rows in places[:, 0].argsort(stable=True).split(per_pass):  # rows of like length together
        back, inward = _back(run, cell, places[rows], directions[rows], longest, rng)
        norms[: len(back), rows], moves[: len(inward), rows] = back, inward
    return _flow(run.name, norms, moves)


def _anchors(run: Run, count: int | None) -> Tensor:
    """``(N, 2)``: frames t, from 1, and sequences."""
    found = []
    for b, length in enumerate(run.lengths.tolist()):
        some = length - 1 if count is None else min(count, length - 1)
        found += [(round((length - 1) * (k + 1) / some), b) for k in range(some)]
    if not found:
        raise OptionError("gradients flow from frame to frame: at least two are needed", received=f"T = {run.T}")
    return torch.tensor(found)


def _back(
    run: Run, cell: Moved, places: Tensor, directions: Tensor, longest: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Norms ``(K, N)`` of the state's derivatives at lags from 1, and ``(K + 1, N)`` of the input's at lags from 0."""
    t, b = places.unbind(1)
    first = (t - longest + 1).clamp_min(1)  # the first frame of each row's piece; its lag is t - first + 1
    count = t - first + 1
    K = int(count.max())
    frames = (first + torch.arange(K)[:, None]).clamp_max(run.T - 1)  # (K, N)
    x = tuple(v[frames, b].requires_grad_(v.is_floating_point()) for v in run.x)
    state = tuple(s[first, b] for s in run.states)
    reset = None if run.reset is None else run.reset[frames, b]
    by = state[0].new_zeros(K, len(t), directions.shape[1]).requires_grad_()
    with torch.enable_grad(), options(executor="auto", save="all", check_nan=False):
        y, last = run.scan(cell, (*x, by), state, b, lengths=count, reset=reset)
        flat = torch.cat([s.flatten(1) for s in last], 1)
        (back,) = torch.autograd.grad((flat * directions.to(flat)).sum(), by, retain_graph=True)
        end = y[count - 1, torch.arange(len(t))].flatten(1)
        probe = torch.nn.functional.normalize(torch.randn(end.shape, generator=rng), dim=1).to(end)
        real = [v for v in x if v.requires_grad]
        inward = torch.autograd.grad((end * probe).sum(), real, allow_unused=True)
    if reset is not None:  # nothing before it is felt
        back = back.masked_fill(reset[..., None], 0)
    moved = torch.stack(
        [g.flatten(2).double().norm(dim=2) for g in inward if g is not None]
        or [back.new_zeros(K, len(t), dtype=torch.float64)]
    )
    by_lag = count - 1 - torch.arange(K)[:, None]  # (K, N) the frame of each lag from 0; below 0 there is none
    # inf - inf was too large as well; from a state that overflowed itself, what comes back says nothing.
    large = lambda values: values.cpu().nan_to_num(math.inf, math.inf)
    unseen = (by_lag < 0) | ~flat.isfinite().all(1).cpu()
    pick = lambda values: large(values).gather(0, by_lag.clamp_min(0)).masked_fill(unseen, math.nan)
    return pick(back.double().norm(dim=2)), pick(moved.norm(dim=0))


def _flow(name: str, norms: Tensor, moves: Tensor) -> Flow:
    mean = norms.nanmean(1).nan_to_num(math.inf, math.inf)  # NaN: so long after its beginning each state has overflowed
    low, high = (norms.nanquantile(q, dim=1, interpolation="nearest") for q in (0.25, 0.75))
    lags = torch.arange(1, len(mean) + 1, dtype=torch.float64)
    seen = (mean > SMALLEST) & mean.isfinite()
    if int(seen.sum()) >= 2:
        k, log = lags[seen], mean[seen].log()
        slope = ((k - k.mean()) * (log - log.mean())).sum() / ((k - k.mean()) ** 2).sum()
        decay = float(slope.exp())
    else:  # nothing comes back at all, or there is one lag, or all overflow from the second one on
        decay = float(mean[0]) if float(mean[0]) > SMALLEST else 0.0
    grown = bool(mean.isinf().any())
    reach = math.inf if grown else float(torch.tensor(decay, dtype=torch.float64) ** len(mean))
    verdict = "vanishing" if reach < VANISHED else "exploding" if reach > EXPLODED else "healthy"
    inward = moves.nanmean(1)
    inward = inward[~inward.isnan()]
    felt = (
        (inward >= 0.01 * inward.max()).nonzero() if len(inward) and float(inward.max()) > 0 else inward.new_zeros(0, 1)
    )
    return Flow(
        name,
        [int(k) for k in lags],
        mean.tolist(),
        low.tolist(),
        high.tolist(),
        decay,
        math.log(0.5) / math.log(decay) if 0 < decay < 1 else (0.0 if decay == 0 else math.inf),
        reach,
        verdict,
        int(felt.max()) if len(felt) else 0,
        inward.tolist(),
    )


def verdicts(flows: list[Flow]) -> Iterator[str]:
    """A line a layer."""
    for flow in flows:
        life = (
            f"half of it is gone after {flow.half_life:.3g} frames"
            if flow.half_life < math.inf
            else "it does not shrink"
        )
        yield f"{flow.name}: {flow.verdict}; {flow.decay_per_frame:.4g} a frame, {life}"
