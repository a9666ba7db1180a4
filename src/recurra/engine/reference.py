"""The plain loop over ``cell.step``: the definition of every scan, and the slow path for what cannot be derived."""

import torch
from torch import Tensor

from recurra.engine.request import Leaves, Request, Result


def run(request: Request) -> Result:
    """Step frame by frame, each time with the sequences that are still running.

    Any Module works as a cell here, to any order of derivatives. Padding is never read.
    """
    T, B, reverse = request.T, request.B, request.reverse
    lengths = None if request.lengths is None else request.lengths.to(request.x[0].device)
    shortest = T if lengths is None or B == 0 else int(lengths.min())
    initial = None if request.reset is None else request.initial()
    state, ys, states = request.state, dict[int, Tensor](), dict[int, Leaves]()
    for t in reversed(range(T)) if reverse else range(T):
        rows = None if lengths is None or t < shortest else (lengths > t).nonzero().squeeze(1)
        if request.reset is not None and initial is not None:
            state = _reset(request.reset, t, lengths, state, initial, reverse=reverse)
        if rows is None:
            ys[t], state = request.step(tuple(v[t] for v in request.x), state, request.constants)
        elif rows.numel():
            at = lambda v: v.index_select(0, rows)  # noqa: B023 - used within this turn only
            y, new = request.step(
                tuple(at(v[t]) for v in request.x), tuple(map(at, state)), tuple(map(at, request.constants))
            )
            ys[t] = y.new_zeros(B, *y.shape[1:]).index_copy(0, rows, y)
            state = tuple(old.index_copy(0, rows, v) for old, v in zip(state, new, strict=True))
        states[t] = tuple(state)
    zero = next(iter(ys.values())).new_zeros(()) if ys else None
    empty = zero.expand(next(iter(ys.values())).shape) if zero is not None else _no_output(request)
    y = torch.stack([ys.get(t, empty) for t in range(T)]) if T else empty.new_zeros(0, *empty.shape)
    stacked = None
    if request.return_states:
        stacked = tuple(
            torch.stack([states[t][k] for t in range(T)]) if T else v.new_zeros(0, *v.shape)
            for k, v in enumerate(request.state)
        )
    return Result(y, tuple(state), stacked)


def _reset(reset: Tensor, t: int, lengths: Tensor | None, state: Leaves, initial: Leaves, *, reverse: bool) -> Leaves:
    """A reset at t begins a segment there; going backwards, its border lies between t and t - 1."""
    begins = t + 1 if reverse else t
    if begins >= reset.shape[0]:
        return state
    mask = reset[begins] if lengths is None else reset[begins] & (lengths > begins)
    return tuple(torch.where(mask.view(-1, *[1] * (s.dim() - 1)), i, s) for s, i in zip(state, initial, strict=True))


def _no_output(request: Request) -> Tensor:
    """A zero output of the right shape where no frame ran: from one step on zeros, without gradients."""
    with torch.no_grad():
        one = lambda v: v.new_zeros(1, *v.shape[1:])
        x = tuple(v.new_zeros(1, *v.shape[2:]) for v in request.x)
        y, _ = request.step(x, tuple(map(one, request.state)), tuple(map(one, request.constants)))
    return y.new_zeros(request.B, *y.shape[1:])
