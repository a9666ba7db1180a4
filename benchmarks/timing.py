"""Times of contenders in turn, so that whatever disturbs the machine disturbs them alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

SETTLE = 0.01  # seconds between calls of two processes: threads that wait for work spin for some milliseconds


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


def ratio(these: Sequence[float], others: Sequence[float]) -> float:
    """The median of the rounds' quotients: a machine that is slower for a while is so for both of a round."""
    return statistics.median(a / b for a, b in zip(these, others, strict=True))


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    budget: float,
    least: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Times]:
    """Call each once a round, each round beginning with the next one, after one round that does not count.

    A call that has a method ``seconds`` runs in another process, which measures the time itself: messages cost nothing.

    Args:
        rounds: at most so many. budget: seconds after which no further round begins; `least` are always made.
    """
    names, taken = list(calls), {name: list[float]() for name in calls}
    for name in names:
        _seconds(calls[name], clock)
    collecting = gc.isenabled()
    gc.disable()  # a collection would be charged to whoever happens to be running
    try:
        began = clock()
        for k in range(rounds):
            if k >= least and clock() - began > budget:
                break
            for name in names[k % len(names) :] + names[: k % len(names)]:
                taken[name].append(_seconds(calls[name], clock))
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    return {name: Times(tuple(seconds)) for name, seconds in taken.items()}


def _seconds(call: Any, clock: Callable[[], float]) -> float:
    if hasattr(call, "seconds"):
        time.sleep(SETTLE)
        elsewhere: float = call.seconds()
        time.sleep(SETTLE)
        return elsewhere
    start = clock()
    call()
    return clock() - start


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


def copy_bandwidth(seconds: float = 1.0, size: int = 1 << 26) -> float:
    """The best rate at which torch copies `size` floats, far more than any cache holds: bytes read and written."""
    a, b = torch.ones(size), torch.zeros(size)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        b.copy_(a)
        best = min(best, time.perf_counter() - start)
    return 2 * a.numel() * a.element_size() / best
