"""Peak memory of training, in a fresh process each: what a step takes on top of what stands before it."""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import streams
from benchmarks.cases import GRID, Case, Crowd
from benchmarks.contenders import CONTENDERS, draw

ROOT = Path(__file__).parents[1]
CASES = tuple(Case("lstm", *shape) for shape in GRID)
WHO = ("recurra native", "torch.nn")
STEPS = 3  # the second meets what the first left behind
ENDLESS = Crowd("lstm", 10_000, 64, 64)
FRAMES = 10_000_000


def measure(case: Case | Crowd, who: str, threads: int) -> float | str:
    """MiB that a process of its own grows by: training steps at their peak, or streams without end; or why not."""
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(asdict(case)), who, str(threads)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it died"]
        return next((line for line in reversed(lines) if "Error" in line), lines[-1])
    said = json.loads(done.stdout.splitlines()[-1])
    return said if isinstance(said, str) else float(said)


def resident(process: int | str = "self") -> tuple[float, float]:
    """MiB of a process: now, and at most so far. Of another one on Linux alone."""
    status = Path(f"/proc/{process}/status")
    if process == "self" and not status.exists():
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return most, most
    kib = dict(re.findall(r"^(\w+):\s+(\d+) kB$", status.read_text("ascii"), re.M))
    return int(kib["VmRSS"]) / 1024, int(kib["VmHWM"]) / 1024


def _endless(row: Crowd) -> float | str:
    """What streams that come and go add after their first thousand frames each of ten."""
    push = streams.crowd(row)[streams.TOGETHER]
    if isinstance(push, str):
        return push
    for _ in range(10):
        push()
    before, _ = resident()
    for _ in range(FRAMES // row.B):
        push()
    return resident()[0] - before


def main(arguments: Sequence[str]) -> None:
    """Print the MiB of one case, as JSON."""
    spec, who, threads = json.loads(arguments[0]), arguments[1], int(arguments[2])
    torch.set_num_threads(threads)
    if "moving" in spec:
        print(json.dumps(_endless(Crowd(**spec))))
        return
    case = Case(**spec)
    call = CONTENDERS[who](draw(case))
    if isinstance(call, str):
        print(json.dumps(call))
        return
    small = CONTENDERS[who](draw(Case(case.cell, 3, 2, 3, 4)))
    assert not isinstance(small, str)
    small()  # what a library loads at its first call is no memory of training
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5", "ascii")  # Linux: the peak begins anew here
    before, _ = resident()
    for _ in range(STEPS):
        call()
    print(json.dumps(resident()[1] - before))


if __name__ == "__main__":
    main(sys.argv[1:])
