"""``python -m benchmarks.long``: very long sequences: exact gradients in little memory, and linear recurrences.

Each figure is taken in a process of its own, so that its memory is nobody else's.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import recurra
from benchmarks.memory import resident

ROOT = Path(__file__).parents[1]


def _step(cell: str, T: int, D: int, H: int, **options: Any) -> Callable[[], float]:
    """Seconds of a training step, B = 1, gradients to inputs and weights."""
    torch.manual_seed(0)
    made = recurra.cells.cell_named(cell)(D, H)
    x = torch.randn(T, 1, D, requires_grad=True)
    dy = torch.randn(T, 1, H)

    def step() -> float:
        x.grad = None
        made.zero_grad()
        began = time.perf_counter()
        with recurra.options(**options):
            y, _ = recurra.scan(made, x)
            y.backward(dy)
        return time.perf_counter() - began

    return step


def million() -> dict[str, float]:
    """Exact gradients over a million frames of an LSTM."""
    base = resident()[0]
    step = _step("lstm", 1_000_000, 64, 64, save="sqrt")
    seconds = step()
    return {"seconds": seconds, "gib": (resident()[1] - base) / 1024}


def saving() -> dict[str, float]:
    """Training steps at T = 10,000, which keep all and √T states in turns: how much longer, how much less."""
    modes = ("all", "sqrt")
    kept = {save: _kept(save) for save in modes}
    steps = {save: _step("lstm", 10_000, 64, 64, save=save) for save in modes}
    rounds = [{save: step() for save, step in steps.items()} for _ in range(16)][1:]
    ratios = [seconds["sqrt"] / seconds["all"] for seconds in rounds]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"ratio": middle, "low": low, "high": high, "kept": kept["sqrt"] / kept["all"]}


def _kept(save: str) -> int:
    """Bytes that a scan keeps for its backward pass."""
    cell, x = recurra.LSTMCell(64, 64), torch.randn(10_000, 1, 64, requires_grad=True)
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size() if tensor.data_ptr() != x.data_ptr() else 0
        return tensor

    with recurra.options(save=save), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        recurra.scan(cell, x)
    return kept


def linear() -> dict[str, float]:
    """minGRU's training step at T = 65,536 on the native machine, and on the executor that it must beat."""
    ours, theirs = (_step("min_gru", 65_536, 256, 256, executor=name) for name in ("native", "staged"))
    ours()
    return {"native": statistics.median(ours() for _ in range(5)), "staged": theirs()}


def flat() -> dict[str, float]:
    """Microseconds a frame of minGRU's training step, with what is kept below 64 MiB."""
    found = {}
    for T in (10_000, 100_000, 1_000_000):
        step = _step("min_gru", T, 64, 64, save=64 * 2**20)
        step()
        found[str(T)] = 1e6 * statistics.median(step() for _ in range(3)) / T
    return found


PARTS: dict[str, Callable[..., dict[str, float]]] = {
    "million": million, "saving": saving, "linear": linear, "flat": flat
}  # fmt: skip


def apart(*named: str) -> dict[str, float]:
    """The figures of one part, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.long", *named]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str]) -> None:
    """One part's figures as JSON; without a name all of them, in words."""
    if arguments:
        print(json.dumps(PARTS[arguments[0]](*arguments[1:])))
        return
    print(f"B = 1, {torch.get_num_threads()} threads")
    found = apart("million")
    print(f"LSTM, H = 64, T = 1,000,000, exact gradients: {found['gib']:.2f} GiB (bar: 2), {found['seconds']:.1f} s")
    found = apart("saving")
    print(
        f'save="sqrt" at T = 10,000: {found["ratio"]:.2f} times the time, half of the rounds {found["low"]:.2f} to '
        f"{found['high']:.2f} (bar: 1.5), {found['kept']:.3f} of what is kept (bar: 0.1)"
    )
    found = apart("linear")
    print(
        f"minGRU, T = 65,536, H = 256, a training step: {found['native']:.2f} s, staged {found['staged']:.1f} s: "
        f"{found['staged'] / found['native']:.0f} times as fast (bar: 20)"
    )
    found = apart("flat")
    print("minGRU, H = 64, µs a frame: " + ", ".join(f"T = {int(T):,}: {us:.2f}" for T, us in found.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
