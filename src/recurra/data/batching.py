"""Rows of unequal length to padded batches, and rows to a training and a held-out part."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler
from typing_extensions import override

from recurra.errors import DataError, EmptyDataError, OptionError

Rows = np.ndarray[Any, np.dtype[np.int64]]
POOL = 50  # batches whose rows are sorted by length together


class Batch(NamedTuple):
    """Padded rows.

    Attributes:
        tokens: ``(B, T)``, int64, 0 past a row's end. lengths: ``(B,)``, int64. labels: ``(B,)``, int64.
    """

    tokens: Tensor
    lengths: Tensor
    labels: Tensor


def collate(rows: Sequence[np.ndarray[Any, Any]], labels: Sequence[int] | np.ndarray[Any, Any]) -> Batch:
    """Pad rows with 0 to the longest of them.

    Raises:
        EmptyDataError: there are no rows. DataError: there are not as many labels.

    Example:
        >>> collate([np.array([5, 6]), np.array([7])], [1, 0]).tokens
        tensor([[5, 6],
                [7, 0]])
    """
    if not len(rows):
        raise EmptyDataError("a batch needs at least one row")
    if len(labels) != len(rows):
        raise DataError("a batch needs as many labels as rows", received=f"{len(labels)} labels, {len(rows)} rows")
    lengths = np.array([len(row) for row in rows])
    tokens = np.zeros((len(rows), lengths.max()), dtype=np.int64)
    tokens[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(rows)
    return Batch(torch.from_numpy(tokens), torch.from_numpy(lengths), torch.tensor(np.asarray(labels, dtype=np.int64)))


class LengthBucketSampler(Sampler[list[int]]):
    """Batches of row indices of like length: little padding, and yet another order in each epoch.

    All rows are shuffled and cut into pools of 50 batches; each pool is sorted by length and cut into batches, and
    the batches are shuffled. Every row comes once. What an epoch holds follows from `seed` and the epoch alone, so
    ``(seed, epoch)`` is its whole state.

    Args:
        lengths: of the rows.
        batch_size: B, rows of a batch; one batch may have fewer.
        seed: at least 0.
        shuffle: False: by length alone, the longest first, so that memory runs out at once if it does.

    Raises:
        EmptyDataError: there are no rows. OptionError: a batch size or a seed is out of range.

    Example:
        >>> list(LengthBucketSampler([3, 9, 4, 1, 8], 2, seed=0, shuffle=False))
        [[1, 4], [2, 0], [3]]
        >>> sampler = LengthBucketSampler([3, 9, 4, 1, 8], 2, seed=0)
        >>> sampler.set_epoch(3)
        >>> sampler.state_dict()
        {'seed': 0, 'epoch': 3}
    """

    def __init__(self, lengths: Sequence[int] | Rows, batch_size: int, *, seed: int, shuffle: bool = True):
        if not len(lengths):
            raise EmptyDataError("there are no rows to make batches of")
        if batch_size < 1:
            raise OptionError("batch_size must be positive", received=str(batch_size))
        if seed < 0:
            raise OptionError("a seed must be at least 0", received=str(seed))
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, that the next pass is."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    @override
    def __iter__(self) -> Iterator[list[int]]:
        if not self.shuffle:
            yield from (rows.tolist() for rows in self._batches(self._by_length(np.arange(len(self.lengths)))))
            return
        random = np.random.default_rng([self.seed, self.epoch])
        rows = random.permutation(len(self.lengths))
        size = self.batch_size * POOL
        pools = [self._by_length(rows[start : start + size]) for start in range(0, len(rows), size)]
        batches = [batch for pool in pools for batch in self._batches(pool)]
        for i in random.permutation(len(batches)):
            yield batches[i].tolist()

    def state_dict(self) -> dict[str, int]:
        """What decides the batches, apart from the rows."""
        return {"seed": self.seed, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another sampler of the same rows was."""
        self.seed, self.epoch = state["seed"], state["epoch"]

    def _by_length(self, rows: Rows) -> Rows:
        return rows[np.argsort(-self.lengths[rows], kind="stable")]

    def _batches(self, rows: Rows) -> list[Rows]:
        return [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]


def stratified_split(labels: Sequence[Any] | np.ndarray[Any, Any], fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Rows to train on and rows held out, with each class in both as far as it has rows for that.

    Of each class `fraction` is held out, rounded to the nearest number of rows; of a class of at least two rows one
    is held out and one kept, and the only row of a class is kept. Both parts are in ascending order.

    Args:
        labels: ``(N,)``, of any type that sorts.
        fraction: between 0 and 1, both left out.
        seed: at least 0; the same gives the same split.

    Raises:
        OptionError: `fraction` or `seed` is out of range.
        DataError: nothing would be held out, because each class has only one row.

    Example:
        >>> train, held_out = stratified_split(["a"] * 8 + ["b"] * 4, 0.25, seed=0)
        >>> len(train), len(held_out), (held_out < 8).sum().item()
        (9, 3, 2)
    """
    if not 0 < fraction < 1:
        raise OptionError("the part that is held out must lie between 0 and 1", received=str(fraction))
    if seed < 0:
        raise OptionError("a seed must be at least 0", received=str(seed))
    classes, index = np.unique(np.asarray(labels), return_inverse=True)
    random = np.random.default_rng(seed)
    held_out = np.zeros(len(index), dtype=bool)
    for i in range(len(classes)):
        rows = random.permutation(np.flatnonzero(index == i))
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        held_out[rows[:count]] = True
    if not held_out.any():
        raise DataError(
            "there are too few rows to hold some out",
            received=f"{len(index)} rows of {len(classes)} classes",
            instead="at least two rows of a class",
        )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
