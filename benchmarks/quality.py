"""``python -m benchmarks.quality --data ../shared/data``: what writes texts, trained and held to its bars of quality.

Each row is one command, most of them a preset with fewer epochs than its own, so that all fit into some 75 minutes on
two cores. They run two at a time, with a thread each, which takes less than one after the other with two. Some of them:
``python -m benchmarks.quality ptb-awd django``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure
from benchmarks.machine import heading

Told = dict[str, Any]  # what the command tells of its test part, as JSON


def _summary(test: Told, name: str) -> tuple[float, float]:
    """A score, and that of the first sentences."""
    return test[name]["value"], test["baselines"]["lead"][name]["value"]


def beyond_lead(test: Told) -> Iterator[Figure]:
    """ROUGE in units of the first sentences'."""
    for name, title in (("rouge1", "ROUGE-1"), ("rougeL", "ROUGE-L")):
        ours, lead = _summary(test, name)
        yield Figure(f"{title} {ours:.1f}, first sentences {lead:.1f}: their quotient", ours / lead, 1.5)


def above_lead(test: Told) -> Iterator[Figure]:
    """ROUGE-1, and by how much it exceeds the first sentences'."""
    ours, lead = _summary(test, "rouge1")
    yield Figure("ROUGE-1", ours, 16, "{:.1f}")
    yield Figure("ROUGE-1 above the first sentences'", ours - lead, 0, "{:.1f}")


def of(name: str, bar: float, form: str = "{:.1f}", *, at_most: bool = False) -> Callable[[Told], Any]:
    """A single figure of the test part."""

    def figures(test: Told) -> Iterator[Figure]:
        value = test[name]
        yield Figure(name, value["value"] if isinstance(value, dict) else value, bar, form, at_most=at_most)

    return figures


@dataclass(frozen=True)
class Row:
    """A training: the words after ``recurra train``, and the figures held to bars."""

    command: str
    figures: Callable[[Told], Iterator[Figure]]


# The dearest first, so that both cores end at about the same time.
ROWS: dict[str, Row] = {
    "ptb-awd": Row("language ptb --preset ptb-awd", of("perplexity", 105, at_most=True)),
    "tinyshakespeare": Row(
        "language tinyshakespeare --preset tinyshakespeare",
        of("nats_per_token", 1.52, "{:.4f}", at_most=True),
    ),
    "ptb-small": Row("language ptb --preset ptb-small --epochs 4", of("perplexity", 117, at_most=True)),
    "tatoeba": Row("summarize tatoeba --preset tatoeba --epochs 1", of("bleu", 25)),
    "docstrings": Row("summarize docstrings --preset docstrings --epochs 3", beyond_lead),
    "aeslc": Row("summarize aeslc --preset aeslc --epochs 3", above_lead),
    "django": Row("summarize django_pseudocode --preset django --epochs 4", of("bleu", 45)),
}


@dataclass(frozen=True)
class Done:
    """A row's figures, or why there are none; and what it took."""

    figures: tuple[Figure, ...]
    failure: str
    seconds: float


def trained(row: Row, data: Path, place: Path) -> Done:
    """Run a command in a process of one thread, into the folder."""
    told = ["--data-dir", str(data), "--seed", "0", "--out", str(place), "--overwrite", "--json"]
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    began = time.perf_counter()
    command = [sys.executable, "-m", "recurra", "train", *row.command.split(), *told]
    done = subprocess.run(command, env={**os.environ, **one}, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        return Done((), f"exit code {done.returncode}: {done.stderr.strip()[-500:]}", seconds)
    return Done(tuple(row.figures(json.loads(done.stdout)["test"])), "", seconds)


def main(arguments: Sequence[str]) -> int:
    """Print each figure, its bar and whether it holds; give 1 where one does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of {', '.join(ROWS)}; all without")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder of the corpora")
    parser.add_argument("--out", type=Path, help="keep the run folders here; without it they are thrown away")
    parser.add_argument("--at-once", type=int, default=2, help="how many run side by side, a thread each")
    told = parser.parse_args(arguments)
    if unknown := set(told.rows) - set(ROWS):
        parser.error(f"there is no row {', '.join(sorted(unknown))}; they are {', '.join(ROWS)}")
    print(heading(), flush=True)
    began, held = time.perf_counter(), True
    with tempfile.TemporaryDirectory() as spare, ThreadPoolExecutor(told.at_once) as pool:
        places = told.out or Path(spare)
        running = {
            pool.submit(trained, row, told.data, places / name): name
            for name, row in ROWS.items()
            if not told.rows or name in told.rows
        }
        for found in as_completed(running):
            name, done = running[found], found.result()
            print(f"{name}: recurra train {ROWS[name].command}, {done.seconds / 60:.0f} min")
            print("".join(f"  {figure}\n" for figure in done.figures) or f"  {done.failure}\n", end="", flush=True)
            held &= bool(done.figures) and all(figure.holds for figure in done.figures)
    print(f"all together {(time.perf_counter() - began) / 60:.0f} min")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
