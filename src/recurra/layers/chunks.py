"""Long sequences chunk by chunk: truncated back-propagation through time."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from recurra.errors import InputTypeError, OptionError


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
        x: ``(B, T, ...)`` with `batch_first`, ``(T, B, ...)`` without, or a NamedTuple of such.
        state: what the layer begins with; gradients of the first chunk reach it.
        chunk: C, frames of a chunk; the last one may have fewer.
        lengths: ``(B,)``, 0 to T: frames of each sequence, where the layer takes them.
        reset: bool, in the layout of `x`, where the layer takes them.

    Yields:
        ``(y, state)`` of each chunk, the state detached.

    Raises:
        OptionError: `chunk` is not positive, or the layer runs both ways: what runs back begins at the sequence's end.

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
    """
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise OptionError("chunk must be a positive integer", received=repr(chunk))
    if getattr(layer, "bidirectional", False):
        raise OptionError(
            f"{type(layer).__name__} runs both ways, and what runs back begins at the sequence's end",
            instead="bidirectional=False",
        )
    first = x[0] if isinstance(x, tuple) and x else x
    if not isinstance(first, Tensor):
        raise InputTypeError("tbptt cuts a tensor, or a NamedTuple of such", received=type(first).__name__)
    return _chunks(layer, x, state, chunk, lengths, reset)


def _chunks(
    layer: Callable[..., Any], x: Any, state: Any, chunk: int, lengths: Tensor | None, reset: Tensor | None
) -> Iterator[tuple[Any, Any]]:
    single = isinstance(x, Tensor) and x.dim() == 2 and x.is_floating_point()  # one sequence, as torch.nn takes it
    axis = 1 if getattr(layer, "batch_first", False) and not single else 0
    T = (x[0] if isinstance(x, tuple) else x).shape[axis]
    for start in range(0, T, chunk):
        size = min(chunk, T - start)
        further: dict[str, Any] = {}
        if lengths is not None:
            further["lengths"] = (lengths - start).clamp(0, size)
        if reset is not None:
            further["reset"] = reset.narrow(axis, start, size)
        cut = lambda v, at=start, n=size: v.narrow(axis, at, n)
        piece = cut(x) if isinstance(x, Tensor) else type(x)(*map(cut, x))
        y, state = layer(piece, state, **further)
        state = detached(state)
        yield y, state
        del y  # or its graph would live on beside the next chunk's


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
