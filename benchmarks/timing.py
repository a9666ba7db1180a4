"""Times of contenders in turn, so that whatever disturbs the machine disturbs them alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Times:
    """The seconds of single calls, and their quartiles."""

    seconds: tuple[float, ...]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Of all calls: a quarter was faster than the first, half faster than the second (the median)."""
        if len(self.seconds) == 1:
            return (self.seconds[0],) * 3
        low, middle, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, middle, high

    @property
    def median(self) -> float:
        """What is reported."""
        return self.quartiles[1]


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    budget: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Times]:
    """Call each once a round, each round beginning with the next one, after one round that does not count.

    Args:
        rounds: at most so many. budget: seconds after which no further round begins; three are always made.
    """
    names, taken = list(calls), {name: list[float]() for name in calls}
    for call in calls.values():
        call()
    collecting = gc.isenabled()
    gc.disable()  # a collection would be charged to whoever happens to be running
    try:
        began = clock()
        for k in range(rounds):
            if k >= 3 and clock() - began > budget:
                break
            for name in names[k % len(names) :] + names[: k % len(names)]:
                start = clock()
                calls[name]()
                taken[name].append(clock() - start)
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    return {name: Times(tuple(seconds)) for name, seconds in taken.items()}


def matmul_flops(seconds: float = 1.0) -> float:
    """The best rate that torch's float32 matrix product reaches here: what the machine can be asked for."""
    n = 1024
    a, b = torch.randn(n, n), torch.randn(n, n)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best
