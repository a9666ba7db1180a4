"""Where the valid frames of a batch lie: the one place that knows padding, order and direction.

Executors that work on *packed* frames see a list of rows: frame by frame in the order of processing, in each frame
the sequences that are still running, longest first. Lengths, their order, and the direction of time are in this index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frames:
    """The frames of T × B that are valid, in the order in which they are processed.

    Args:
        T, B: the padded sizes.
        reverse: each sequence runs from its last valid frame to its first.
        lengths: ``(B,)`` on the host, or None where all sequences have T frames.
        device: where the index lives.
    """

    T: int
    B: int
    reverse: bool
    lengths: Tensor | None
    device: torch.device

    @cached_property
    def order(self) -> Tensor | None:
        """``(B,)``: which sequence each packed row is, longest first; None where the order is that of the batch."""
        if self.lengths is None:
            return None
        return self.lengths.argsort(descending=True, stable=True).to(self.device)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many sequences are running in each processed frame: never more than in the frame before."""
        if self.lengths is None:
            return (self.B,) * self.T if self.B else ()
        ended = torch.bincount(self.lengths, minlength=self.T + 1)  # how many have exactly that many frames
        running = self.B - ended.cumsum(0)
        return tuple(n for n in running[: self.T].tolist() if n)

    @cached_property
    def count(self) -> int:
        """N, the number of valid frames."""
        return sum(self.sizes)

    @cached_property
    def _grid(self) -> tuple[Tensor, Tensor]:
        """``(N,)`` each: the frame and the packed row of every valid frame."""
        lengths = (
            torch.full((self.B,), self.T)
            if self.lengths is None
            else self.lengths.sort(descending=True, stable=True)[0]
        )
        lengths = lengths.to(self.device)
        steps = torch.arange(len(self.sizes), device=self.device)[:, None]
        valid = steps < lengths
        time = lengths - 1 - steps if self.reverse else steps.expand_as(valid)
        return time[valid], torch.arange(self.B, device=self.device).expand_as(valid)[valid]

    @cached_property
    def index(self) -> Tensor:
        """``(N,)``: where each valid frame lies among the T · B padded ones."""
        time, row = self._grid
        return time * self.B + (row if self.order is None else self.order[row])

    @cached_property
    def row(self) -> Tensor:
        """``(N,)``: which packed row each valid frame belongs to."""
        return self._grid[1]

    @property
    def _whole(self) -> bool:
        return self.lengths is None

    def pack(self, padded: Tensor) -> Tensor:
        """``(T, B, ...)`` to ``(N, ...)``."""
        if self._whole:
            return (padded.flip(0) if self.reverse else padded).reshape(self.T * self.B, *padded.shape[2:])
        return padded.reshape(self.T * self.B, *padded.shape[2:]).index_select(0, self.index)

    def unpack(self, packed: Tensor, padding: Tensor | None = None) -> Tensor:
        """``(N, ...)`` to ``(T, B, ...)``; padded frames are zero, or those of `padding` ``(B, ...)``."""
        shape = packed.shape[1:]
        if self._whole:
            padded = packed.reshape(self.T, self.B, *shape)
            return padded.flip(0) if self.reverse else padded
        empty = packed.new_zeros(1) if padding is None else padding
        background = empty.expand(self.T, self.B, *shape).reshape(self.T * self.B, *shape)
        return background.index_copy(0, self.index, packed).reshape(self.T, self.B, *shape)

    def sort(self, rows: Tensor) -> Tensor:
        """``(B, ...)`` in packed order."""
        return rows if self.order is None else rows.index_select(0, self.order)

    def unsort(self, rows: Tensor) -> Tensor:
        """``(B, ...)`` back in the order of the batch."""
        return rows if self.order is None else torch.empty_like(rows).index_copy(0, self.order, rows)

    def resets(self, reset: Tensor | None) -> list[Tensor | None]:
        """For each processed frame, ``(n,)`` bool: which rows begin anew before it. None where none does."""
        if reset is None:
            return [None] * len(self.sizes)
        if self.reverse:  # a segment begins at t: going backwards, its border lies between t and t - 1
            reset = torch.cat([reset[1:], torch.zeros_like(reset[:1])])
        packed = self.pack(reset)
        if self.reverse and self.sizes:
            packed = packed.clone()
            packed[: self.sizes[0]] = False  # a border behind the last valid frame is in the padding
        pieces = packed.split(self.sizes) if self.sizes else ()
        return [p if some else None for p, some in zip(pieces, _any(pieces), strict=True)]


def _any(pieces: Sequence[Tensor]) -> list[bool]:
    if not pieces:
        return []
    result: list[bool] = torch.stack([p.any() for p in pieces]).tolist()
    return result
