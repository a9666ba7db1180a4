"""Long sequences chunk by chunk: truncated back-propagation through time."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from recurra.engine.request import check_lengths, check_reset
from recurra.errors import InputTypeError, LengthsError, OptionError

_ENDLESS = 2**63 - 1


def tbptt(
    layer: Callable[..., Any],
    x: Any,
    state: Any = None,
    *,
    chunk: int,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
) -> Iterator[tuple[Any, Any]]:
    r"""Run a layer over a long sequence chunk by chunk, gradients ending where a chunk begins (Williams & Peng, 1990).

    .. math::
        y_{kC..kC+C-1}, s_{kC+C} = \mathrm{layer}(x_{kC..kC+C-1}, \mathrm{detach}(s_{kC}))

    Memory is that of one chunk, whatever the length: call ``backward`` on a loss of each ``y`` before the next is asked
    for. Weights may be changed in between. Outputs are those of one call, and with ``chunk >= T`` gradients too.

    Args:
        layer: :class:`recurra.Recurrent`, :class:`recurra.LSTM`, ``GRU`` or ``RNN``, torch's own, or any callable
            ``(x, state) -> (y, state)`` with an attribute `batch_first` (without one, time comes first).
        x: ``(B, T, ...)`` with `batch_first`, ``(T, B, ...)`` without, or a NamedTuple of such. What memory does not
            hold: a NumPy array, such as :class:`numpy.memmap`, of which a chunk at a time is copied; or an iterable of
            pieces ``(B, Tᵢ, ...)`` that follow one another, taken once, each cut into chunks of its own.
        state: what the layer begins with; gradients of the first chunk reach it.
        chunk: C, frames of a chunk; the last one may have fewer.
        lengths: ``(B,)``, 0 to T: frames of each sequence, where the layer takes them.
        reset: bool, in the layout of `x`, where the layer takes them.

    Yields:
        ``(y, state)`` of each chunk, the state detached.

    Raises:
        OptionError: `chunk` is not positive, or the layer runs both ways: what runs back begins at the sequence's end.
        InputTypeError: `x`, or a piece of it, is none of these. LengthsError, ResetError: as the layer says it of all
            frames; of pieces, what is too long for them, once they have ended.

    Example:
        >>> import torch
        >>> from recurra import LSTM
        >>> layer = LSTM(3, 4)
        >>> for y, (h, c) in tbptt(layer, torch.randn(10, 2, 3), chunk=4):
        ...     y.square().mean().backward()
        ...     print(tuple(y.shape), h.requires_grad)
        (4, 2, 4) False
        (4, 2, 4) False
        (2, 2, 4) False
        >>> pieces = (torch.randn(T, 2, 3) for T in (4, 5))  # made when they are asked for
        >>> [len(y) for y, _ in tbptt(layer, pieces, chunk=4)]
        [4, 4, 1]
    """
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise OptionError("chunk must be a positive integer", received=repr(chunk))
    if getattr(layer, "bidirectional", False):
        raise OptionError(
            f"{type(layer).__name__} runs both ways, and what runs back begins at the sequence's end",
            instead="bidirectional=False",
        )
    whole = isinstance(x, Tensor | np.ndarray) or hasattr(x, "_fields")
    if not whole and (not isinstance(x, Iterable) or isinstance(x, str | bytes | dict)):
        raise InputTypeError(
            "tbptt cuts a tensor, an array, a NamedTuple of such, or an iterable of them", received=type(x).__name__
        )
    return _chunks(layer, [x] if whole else x, state, chunk, lengths, reset, whole)


def _chunks(
    layer: Callable[..., Any],
    pieces: Iterable[Any],
    state: Any,
    chunk: int,
    lengths: Tensor | None,
    reset: Tensor | None,
    whole: bool,
) -> Iterator[tuple[Any, Any]]:
    before = 0  # frames in front of the chunk
    check = lambda T, *, more: None
    for x in pieces:
        if isinstance(x, PackedSequence):
            raise InputTypeError(
                "tbptt cuts frames that stand side by side in time, which those of a PackedSequence do not",
                received="PackedSequence",
                instead="pad_packed_sequence, and lengths=",
            )
        first = x[0] if hasattr(x, "_fields") else x
        if not isinstance(first, Tensor | np.ndarray):
            raise InputTypeError(
                "tbptt cuts a tensor, an array, or a NamedTuple of such; a piece is none", received=type(first).__name__
            )
        floating = first.is_floating_point() if isinstance(first, Tensor) else first.dtype.kind == "f"
        single = first is x and first.ndim == 2 and floating  # one sequence, as torch.nn takes it
        axis = 1 if getattr(layer, "batch_first", False) and not single else 0
        T = first.shape[axis]
        check = functools.partial(_check, lengths, reset, None if single else first.shape[1 - axis], axis)
        check(before + T, more=not whole)
        for start in range(0, T, chunk):
            size = min(chunk, T - start)
            further: dict[str, Any] = {}
            if lengths is not None:
                further["lengths"] = (lengths.long() - before).clamp(0, size)
            if reset is not None:
                further["reset"] = reset.narrow(axis, before, size)
            cut = functools.partial(_cut, axis=axis, start=start, size=size)
            y, state = layer(cut(x) if first is x else type(x)(*map(cut, x)), state, **further)
            state = detached(state)
            yield y, state
            del y  # or its graph would live on beside the next chunk's
            before += size
    check(before, more=False)


def _check(lengths: Any, reset: Any, B: int | None, axis: int, T: int, *, more: bool) -> None:
    """Raise as a layer does that gets all frames at once. T: of those met; more: others may follow. B: None of one."""
    if lengths is not None:
        if B is None:
            raise LengthsError("a single sequence has its length already")
        check_lengths(lengths, _ENDLESS if more else T, B)
    if reset is not None:
        rows = reset
        if isinstance(reset, Tensor):
            rows = reset[..., None] if B is None else reset.transpose(0, axis) if reset.dim() == 2 else reset
        check_reset(rows, max(T, len(rows)) if more and isinstance(rows, Tensor) and rows.dim() else T, B or 1)


def _cut(x: Any, *, axis: int, start: int, size: int) -> Tensor:
    if isinstance(x, Tensor):
        return x.narrow(axis, start, size)
    return torch.tensor(x[(slice(None),) * axis + (slice(start, start + size),)])


def detached(state: Any) -> Any:
    """A state cut off from the graph that made it, whatever its structure of tuples.

    Example:
        >>> import torch
        >>> from recurra import LSTMState
        >>> detached((LSTMState(torch.ones(1, requires_grad=True) * 2, torch.zeros(1)), None))
        (LSTMState(h=tensor([2.]), c=tensor([0.])), None)
    """
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, tuple | list):
        parts = [detached(part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return state
