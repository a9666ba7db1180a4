"""The random states of torch, numpy and python: captured, restored, and kept apart from the caller's."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_states() -> dict[str, Any]:
    """The states of all generators that a training step may draw from."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": np.random.get_state(),  # the global generator: a user's cell may draw from it
        "python": random.getstate(),
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Put all generators back to where :func:`random_states` found them."""
    torch.set_rng_state(states["torch"])
    for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state, device)  # a run may go on where there are fewer, or none
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])


def seed_all(seed: int) -> None:
    """Seed every generator."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def seed_apart(*numbers: int) -> None:
    """Seed every generator with what `numbers`, whole ones of at least 0, make together.

    Example:
        >>> def drawn(*numbers):
        ...     with seeded(0):
        ...         seed_apart(*numbers)
        ...         return torch.rand(1).item()
        >>> drawn(3, 1) == drawn(3, 1), drawn(3, 1) == drawn(3, 2)
        (True, False)
    """
    # A sum would give process 1 of seed 3 what process 0 of seed 4 has.
    seed_all(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed every generator inside of the block, and give the caller's states back after it.

    Example:
        >>> with seeded(1):
        ...     a = torch.rand(1)
        >>> with seeded(1):
        ...     bool(a == torch.rand(1))
        True
    """
    before = random_states()
    seed_all(seed)
    try:
        yield
    finally:
        restore_random_states(before)
