"""``torch.compile`` of a model around a recurrent layer: how long until its first training step; how fast it then is.

``python -m benchmarks.compiled`` measures both layers, each in a fresh process with a compiler's cache of its own.
torch.nn.LSTM, which inductor unrolls frame by frame, is stopped once it has taken ``LIMIT`` times as long as ours.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import recurra

ROOT = Path(__file__).parents[1]
T, B, D, H = 500, 16, 50, 100
LIMIT = 5.5
STEPS = 15
LATE = "not compiled"
LAYERS = {"recurra": lambda: recurra.Recurrent("lstm", D, H), "torch.nn": lambda: nn.LSTM(D, H, batch_first=True)}


class Model(nn.Module):
    """The mean of the outputs, behind a linear layer."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(H, 2)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D)."""
        y: Tensor = self.head(self.layer(x)[0].mean(1))
        return y


def one(name: str) -> dict[str, float]:
    """Seconds to the first step of the compiled model, and milliseconds a step, eager and compiled, in turns."""
    torch.manual_seed(0)
    torch._dynamo.config.allow_rnn = True  # type: ignore[attr-defined] # without it Dynamo refuses torch.nn.LSTM
    if name == "torch.nn":  # with oneDNN's layer torch 2.13 does not compile it at all: a TypeError of its own
        torch.backends.mkldnn.enabled = False
    model = Model(LAYERS[name]())
    x, run = torch.randn(B, T, D), torch.compile(model, fullgraph=True)

    def step(call: object) -> float:
        began = time.perf_counter()
        call(x).square().sum().backward()  # type: ignore[operator]
        return time.perf_counter() - began

    first = step(run)
    times = [(step(model), step(run)) for _ in range(STEPS)]
    eager, compiled = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    return {"first_step_s": first, "eager_ms": eager, "compiled_ms": compiled}


def measure(name: str, limit: float | None = None) -> dict[str, float] | str:
    """:func:`one` in a process of its own; a sentence where it takes more than `limit` seconds, or fails."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
        command = [sys.executable, "-m", "benchmarks.compiled", name]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            return f"{LATE} within {limit:.0f} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it died"])[-1]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str]) -> int:
    """One layer's figures as JSON; without a name both, in words."""
    if arguments:
        print(json.dumps(one(arguments[0])))
        return 0
    threads = f"{torch.get_num_threads()} threads"
    print(f"LSTM {T}x{B}x{D}x{H} and a linear layer, torch.compile(fullgraph=True), inductor, {threads}")
    ours = measure("recurra")
    print(f"recurra   {ours}", flush=True)
    if isinstance(ours, str):
        return 1
    limit = LIMIT * ours["first_step_s"] + 60  # what starts and ends a process is not compiling
    other = measure("torch.nn", limit)
    print(f"torch.nn  {other}")
    if isinstance(other, dict):
        print(f"first step: {ours['first_step_s'] / other['first_step_s']:.2f} of torch.nn's time (bar: 0.20)")
    elif other.startswith(LATE):
        print(f"first step: less than {1 / LIMIT:.2f} of torch.nn's time (bar: 0.20)")
    else:
        print("first step: nothing to compare with")
    print(f"compiled against eager: {ours['eager_ms'] / ours['compiled_ms']:.2f} times as fast (bar: 1)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
