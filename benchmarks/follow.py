"""``python -m benchmarks.follow --lines 10000000``: ``recurra predict RUN - --follow``, its rate and its memory.

A process writes short lines to the command's standard input as fast as they are taken, and every answer is read back
and counted. The bar: from a tenth of the lines to the last, resident memory grows by no more than 16 MiB.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from benchmarks.memory import resident

BAR = 16  # MiB
WORDS = {
    "good": "fine warm bright lively clever sharp tender graceful".split(),
    "bad": "dull slow tired empty flat noisy clumsy dreary".split(),
}
THINGS = "film plot cast scene ending music story song dialogue hero".split()
AT_ONCE = 1000  # lines


def lines(label: str, count: int, seed: int) -> list[str]:
    """Short reviews of one class."""
    draw = random.Random(f"{label} {seed}")
    word = lambda: f"{draw.choice(WORDS[label])} {draw.choice(THINGS)}"
    return [f"a {word()} and a {word()}" for _ in range(count)]


def trained(folder: Path) -> Path:
    """A tiny classifier of such lines."""
    from recurra.tasks import TextClassifier

    texts = {label: lines(label, 500, 0) for label in WORDS}
    model = TextClassifier(cell="gru", hidden_size=8, embedding_size=8, max_epochs=8, batch_size=16, random_state=0)
    model.fit([*texts["good"], *texts["bad"]], ["good"] * 500 + ["bad"] * 500, run_dir=folder)
    return folder


def feed(pipe: IO[bytes], count: int) -> None:
    """Write so many lines, good and bad ones by turns."""
    mixed = [line for pair in zip(*(lines(label, AT_ONCE // 2, 1) for label in WORDS), strict=True) for line in pair]
    for at in range(0, count, AT_ONCE):
        pipe.write("".join(f"{line}\n" for line in mixed[: count - at]).encode())
    pipe.flush()


def main(arguments: Sequence[str]) -> int:
    """Print rate and memory at every tenth, and whether the bar holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--run", type=Path, help="a classifier's run folder; without it a tiny one is trained")
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        run = told.run or trained(Path(place, "run"))
        command = [sys.executable, "-m", "recurra", "predict", str(run), "-", "--follow"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            threading.Thread(target=feed, args=(process.stdin, told.lines), daemon=True).start()
            answered, right, next_look, memory, began = 0, 0, 1, [], 0.0
            for answer in process.stdout:
                began = began or time.perf_counter()  # behind the imports
                right += answer.startswith((b"good", b"bad ")[answered % 2])
                answered += 1
                if answered >= next_look * told.lines // 10:
                    rate = answered / (time.perf_counter() - began)
                    memory.append(resident(process.pid)[0])
                    print(f"{answered:>12,} lines  {rate:>9,.0f} lines/s  {memory[-1]:7.1f} MiB", flush=True)
                    next_look += 1
                if answered == told.lines:
                    break  # with its input open the process waits, and its memory can be looked at
            process.stdin.close()
            answered += sum(1 for _ in process.stdout)
    grown = max(memory) - memory[0]
    holds = answered == told.lines and grown <= BAR
    print(f"{answered:,} of {told.lines:,} lines answered, {right / answered:.1%} of them rightly")
    print(f"grown by {grown:.1f} MiB since a tenth (bar: {BAR}): {'holds' if holds else 'does NOT hold'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
