"""The processes of one training, where torchrun started several: which one this is, and what they tell each other.

Without torchrun there is one, of rank 0, and nothing here talks to anyone. Objects travel as torch pickles them:
between processes of one user, never from a file.
"""

import atexit
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")


def count() -> int:
    """How many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if distributed.is_available() and distributed.is_torchelastic_launched() else 1


def rank() -> int:
    """The number of this one among them, from 0; only rank 0 writes and prints."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def by_first(make: Callable[[], T]) -> T:
    """What `make()` returns, or raises, in the first process; the others wait for it and do not call it.

    Example:
        >>> by_first(lambda: "the only process is the first")
        'the only process is the first'
    """
    if count() == 1:
        return make()
    told: list[Any] = [None, None]
    if rank() == 0:
        try:
            told[0] = make()
        except Exception as error:  # raised below, in all of them: a process left waiting would hide it
            told[1] = error
    _join()
    distributed.broadcast_object_list(told)
    if told[1] is not None:
        raise told[1]
    return told[0]  # type: ignore[no-any-return]


def each_after_first(make: Callable[[], T]) -> T:
    """What `make()` returns in this process, called in the first one before all others, as for data it downloads.

    Example:
        >>> each_after_first(lambda: "made once, for there is one process")
        'made once, for there is one process'
    """
    made: list[T] = []
    by_first(lambda: made.append(make()))
    return made[0] if made else make()


def gathered(value: T) -> list[T]:
    """The `value` of each process, in the order of their ranks.

    Example:
        >>> gathered(3)
        [3]
    """
    if count() == 1:
        return [value]
    _join()
    values: list[Any] = [None] * count()
    distributed.all_gather_object(values, value)
    return values


class Share(NamedTuple):
    """What one process computes of a batch."""

    batch: Any
    counts: bool  # False: there were fewer rows than processes, and this is a row of another one's


class Shares(Dataset[Share]):
    """Of each batch of `whole` the rows of one process: every `count`-th, so that long ones are spread evenly.

    Each process must take part in each step, so one without a row computes the first one, which does not count.

    Args:
        whole: indexed by a list of rows, it gives their batch.
        rank, count: of the processes.

    Example:
        >>> class Rows(Dataset):
        ...     def __getitem__(self, rows):
        ...         return rows
        >>> [Shares(Rows(), rank, 3)[[7, 5]] for rank in range(3)]
        [Share(batch=[7], counts=True), Share(batch=[5], counts=True), Share(batch=[7], counts=False)]
    """

    def __init__(self, whole: Any, rank: int, count: int):
        self.whole, self.rank, self.count = whole, rank, count

    def __getitem__(self, rows: list[int]) -> Share:
        own = rows[self.rank :: self.count]
        return Share(self.whole[own or rows[:1]], bool(own))


def shared(batches: DataLoader[Any]) -> DataLoader[Any]:
    """A loader that gives this process its :class:`Share` of each batch; as it is, where there is one process.

    Args:
        batches: its sampler gives lists of rows, the same in all processes.
    """
    if count() == 1:
        return batches
    return DataLoader(
        Shares(batches.dataset, rank(), count()),
        batch_size=None,
        sampler=batches.sampler,
        collate_fn=batches.collate_fn,
        generator=batches.generator,
        num_workers=batches.num_workers,
    )


def _join() -> None:
    """Meet the other processes, once; the group lives as long as the process, for its names are not used twice."""
    if not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(distributed.destroy_process_group)
