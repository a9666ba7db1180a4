"""The bars that the native engine is held to, as data; and whether the figures of a run reach them.

``python -m benchmarks.bars RESULTS.json`` prints them again from a run's file.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import memory
from benchmarks.cases import (
    ARTICLE,
    CASES,
    GRID,
    LARGE,
    MEMORY,
    ONE,
    ONE_THREAD,
    OUR_LSTM,
    PADDED,
    ROUNDED,
    STREAM,
    UNSEEN,
    Article,
    Case,
    Frames,
    Sweep,
)
from benchmarks.timing import ratio

OURS = "recurra native"
TORCH, HUGE, LOOP = "torch.nn", "torch.nn, huge pages", "eager loop"
KERAS = ("Keras on JAX", "Keras on TensorFlow")
Shape = tuple[int, int, int, int]


class NotMeasuredError(Exception):
    """A figure that a bar needs is not in a run; the message says why."""


class Results:
    """The figures of one run, from its JSON document."""

    def __init__(self, document: dict[str, Any]):
        self.cases = {result["case"]: result for result in document.get("results", ())}
        self.red, self.memory, self.machine = (document.get(k, {}) for k in ("red", "memory", "machine"))

    def figure(self, case: str, who: str) -> dict[str, Any]:
        """What is known of a contender in a case.

        Raises:
            NotMeasuredError: nothing is.
        """
        cell = case.split()[0]
        if case not in self.cases:
            why = f"conformance of {cell} is red: {self.red[cell]}" if cell in self.red else "not in this run"
            raise NotMeasuredError(f"{case}: {why}")
        result = self.cases[case]
        if who not in result["figures"]:
            raise NotMeasuredError(f"{case}: {who}: {result['refused'].get(who, 'not a contender there')}")
        return result["figures"][who]  # type: ignore[no-any-return]

    def ms(self, case: str, who: str = OURS) -> float:
        """Median milliseconds of one call."""
        return float(self.figure(case, who)["ms"])

    def ratio(self, case: str, over: str, who: str = OURS) -> float:
        """The time of one contender in units of another's, round by round."""
        rounds = [self.figure(case, one)["rounds_ms"] for one in (over, who)]
        return ratio(*rounds)

    def mib(self, case: str, who: str) -> float:
        """Peak memory that training adds."""
        found = self.memory.get(case, {}).get(who, "not in this run")
        if isinstance(found, str):
            raise NotMeasuredError(f"memory of {case}: {who}: {found}")
        return float(found)


Figure = Callable[[Results], float]


@dataclass(frozen=True)
class Bar:
    """One promise: a sentence, how its figure is computed, and what it must reach."""

    name: str
    sentence: str
    how: str
    figure: Figure
    bar: float
    goal: float | None = None
    at_most: bool = False
    form: str = "{:.2f}×"


# --- how figures are computed -----------------------------------------------------------------------------------------


def speed(case: str, over: str, who: str = OURS) -> Figure:
    """How many times as fast as another contender in the same case."""
    return lambda r: r.ratio(case, over, who)


def geometric_mean(figures: Sequence[Figure]) -> Figure:
    """Of ratios the right mean: ten times and a tenth cancel."""
    return lambda r: math.exp(math.fsum(math.log(f(r)) for f in figures) / len(figures))


def least(figures: Sequence[Figure]) -> Figure:
    """The worst of several, where more is better."""
    return lambda r: min(f(r) for f in figures)


def most(figures: Sequence[Figure]) -> Figure:
    """The worst of several, where less is better."""
    return lambda r: max(f(r) for f in figures)


def over_fastest(case: str, others: Sequence[str]) -> Figure:
    """How many times as fast as the fastest of several; all of them must have run."""
    return lambda r: min(r.ratio(case, other) for other in others)


def share(case: str, of: str) -> Figure:
    """Our time in units of another contender's."""
    return speed(case, OURS, of)


def of_peak(case: str) -> Figure:
    """The share of the measured multiply-add peak."""
    return lambda r: r.figure(case, OURS)["gflops"] / _limit(r, "peak_gflops")


def of_copy(case: str) -> Figure:
    """The share of the measured copy bandwidth."""
    return lambda r: r.figure(case, OURS)["gbytes_per_s"] / _limit(r, "copy_gbytes")


def _limit(results: Results, name: str) -> float:
    if name not in results.machine:
        raise NotMeasuredError(f"the machine's {name} is not in this run")
    return float(results.machine[name])


def memory_ratio(case: str) -> Figure:
    """Our peak in units of torch's."""
    return lambda r: r.mib(case, OURS) / r.mib(case, TORCH)


def unevenness(sweep: Sweep) -> Figure:
    """By how much the dearest frame of a sweep exceeds the cheapest."""

    def figure(r: Results) -> float:
        as_many_frames = [r.ms(sweep.name, f"T = {T}") for T in sweep.Ts]
        return max(as_many_frames) / min(as_many_frames) - 1

    return figure


# --- the bars ---------------------------------------------------------------------------------------------------------


def _step(cell: str, shape: Shape, *, ragged: bool = False) -> str:
    return Case(cell, *shape, ragged=ragged).name


def _over(cell: str, over: str, shapes: Sequence[Shape] = GRID, who: str = OURS) -> list[Figure]:
    return [speed(_step(cell, shape), over, who) for shape in shapes]


def _loop(cell: str, parts: int) -> str:
    T, B, H = MEMORY
    return Case(f"{cell}_loop", T, B, parts * H, H, train=False).name


PAD, REAL = Article(lengths=False).name, Article(lengths=True).name
RAGGED = _step("lstm", ARTICLE, ragged=True)
USERS = ("layer_norm_lstm", UNSEEN)
SWEEPS = {(row.B, row.train): row for row in CASES if isinstance(row, Sweep)}
BATCHES = [s for s in GRID if s[1] >= 32]
STEP, WHOLE = (
    f"{what}, median of the rounds' ratios" for what in ("training step", "whole training step, Adam and all")
)
MEAN, WORST = (f"{STEP}, {what} of 7 shapes" for what in ("geometric mean", "least"))
SPREAD = "as many frames each, in short calls or in long ones: the dearest over the cheapest, less 1"

BARS: tuple[Bar, ...] = (
    Bar("1a", "LSTM at the first shape against torch.nn", STEP, speed(_step("lstm", ARTICLE), TORCH), 2.6, 3.3),
    Bar("1b", "LSTM over the grid against torch.nn", MEAN, geometric_mean(_over("lstm", TORCH)), 1.5, 1.8),
    Bar("1c", "LSTM at its worst shape against torch.nn", WORST, least(_over("lstm", TORCH)), 0.97, 1.1),
    Bar("1d", "LSTM at the first shape against torch.nn with huge pages", STEP,
        speed(_step("lstm", ARTICLE), HUGE), 1.2),
    Bar("1e", "GRU over the grid against torch.nn", MEAN, geometric_mean(_over("gru", TORCH)), 3.5, 5.0),
    Bar("1f", "RNN over the grid against torch.nn", MEAN, geometric_mean(_over("rnn", TORCH)), 3.0, 4.0),
    Bar("2a", "the article's network against torch.nn", WHOLE, speed(PAD, TORCH), 2.3),
    Bar("2b", "the article's network against the faster of Keras on JAX and on TensorFlow", WHOLE,
        over_fastest(PAD, KERAS), 1.5),
    Bar("2c", "with IMDB's lengths against torch.nn on padded batches", WHOLE, speed(REAL, "torch.nn, padded"), 4.0),
    Bar("2d", "with IMDB's lengths against torch.nn on packed batches", WHOLE, speed(REAL, "torch.nn, packed"), 30.0),
    Bar("3a", "LSTM on lengths of 53 % against torch.nn's packed one", STEP, speed(RAGGED, TORCH), 30.0),
    Bar("3b", "LSTM on lengths of 53 % in units of our own padded time", STEP,
        share(RAGGED, PADDED), 0.62, at_most=True),
    Bar("4a", "user-written cells at the first shape against the eager loop", f"{STEP}, least of two cells",
        least([f for cell in USERS for f in _over(cell, LOOP, [ARTICLE])]), 3.0),
    Bar("4b", "user-written cells at their worst shape against the eager loop", f"{WORST} and two cells",
        least([f for cell in USERS for f in _over(cell, LOOP)]), 1.5),
    Bar("4c", "user-written cells at B = 1 against the eager loop", f"{STEP}, least of two cells",
        least([f for cell in USERS for f in _over(cell, LOOP, [ONE])]), 15.0),
    Bar("4d", "layer-norm LSTM in units of our LSTM's time", f"{STEP}, most of 7 shapes",
        most([share(_step(USERS[0], s), OUR_LSTM) for s in GRID]), 1.5, at_most=True),
    Bar("5a", "share of the multiply-add peak in LSTM training from H = 256 on",
        "operations of the products / median / measured peak, least of 3 shapes",
        least([of_peak(_step("lstm", s)) for s in LARGE]), 0.55, form="{:.0%}"),
    Bar("5b", "peak memory of LSTM training in units of torch.nn's",
        "growth of the resident set over 3 steps in a fresh process, most of 7 shapes",
        most([memory_ratio(case.name) for case in memory.CASES]), 1.0, at_most=True),
    *(
        Bar(name, f"cost of a frame from T = 1,000 to 64,000, {what}, B = {B}", SPREAD,
            unevenness(SWEEPS[B, train]), bar, at_most=True, form="{:.0%}")
        for name, what, train, B, bar in (
            ("6a", "forward", False, 8, 0.10),
            ("6b", 'training with save="sqrt"', True, 8, 0.25),
            ("6c", "forward", False, 1, 0.10),
            ("6d", 'training with save="sqrt"', True, 1, 0.25),
        )
    ),
    Bar("7a", "LSTM on two threads against one, B = 8", STEP,
        least(_over("lstm", ONE_THREAD, [s for s in GRID if s[1] == 8])), 1.6),
    Bar("7b", "LSTM on two threads against one, B ≥ 32", f"{STEP}, least of {len(BATCHES)} shapes",
        least(_over("lstm", ONE_THREAD, BATCHES)), 1.8),
    Bar("7c", "LSTM on two threads against one, B = 1 and H = 512", STEP,
        speed(_step("lstm", STREAM), ONE_THREAD), 1.3),
    *(
        Bar(name, f"{title}'s loop: share of the measured copy bandwidth",
            f"forward of what is between the products: {parts}H numbers a frame read (what the hoisted product would "
            "leave in memory) and H written, 4 bytes each, over the whole time of the call",
            of_copy(_loop(cell, parts)), 0.70, form="{:.0%}")
        for name, title, cell, parts in (("8a", "minGRU", "min_gru", 2), ("8b", "RG-LRU", "rg_lru", 3))
    ),
    *(
        Bar(name, f"one streamed frame, H = {H}{how}, against torch.nn.{other}",
            "100 frames of one sequence, D = H, the Python call included, median of the rounds' ratios",
            speed(Frames("lstm", 1, H, H).name, {"LSTM": TORCH}.get(other, f"torch.nn.{other}"), who), bar)
        for name, H, other, who, how, bar in (
            ("9a", 128, "LSTM", OURS, "", 5.0),
            ("9b", 128, "LSTMCell", OURS, "", 2.0),
            ("9c", 512, "LSTM", OURS, "", 3.0),
            ("9d", 512, "LSTMCell", OURS, "", 1.0),
            ("9e", 512, "LSTMCell", ROUNDED, ", weights in bfloat16", 1.6),
            ("9f", 512, "LSTMCell", f"{OURS}, int8", ", weights in int8", 2.5),
        )
    ),
    Bar("9g", "one streamed frame, H = 128, against onnxruntime",
        "100 frames of one sequence, D = H, the Python call included, median of the rounds' ratios",
        speed(Frames("lstm", 1, 128, 128).name, "onnxruntime"), 1.0),
    Bar("10", "10,000 streams that join and leave, stepped together, against one by one",
        "frames a second, median of the rounds' ratios; one by one they are streams of ours too",
        speed(memory.ENDLESS.name, "one stream each"), 20.0),
    Bar("10b", "memory that 10,000,000 frames of 10,000 such streams add", "growth of the resident set, fresh process",
        lambda r: r.mib(memory.ENDLESS.name, OURS), 1.0, at_most=True, form="{:.1f} MiB"),
    Bar("11a", "matrices in bfloat16 against our float32, H ≥ 256", f"LSTM, {STEP}, least of {len(LARGE)} shapes",
        least(_over("lstm", OURS, LARGE, ROUNDED)), 1.3, 1.6),
    Bar("11b", "the article's network in bfloat16 against torch.nn in float32", WHOLE, speed(PAD, TORCH, ROUNDED), 3.0),
)  # fmt: skip


def judge(bar: Bar, results: Results) -> dict[str, Any]:
    """The row of a bar: its figure and whether it holds, or why nobody knows."""
    row = {k: v for k, v in asdict(bar).items() if k != "figure"}
    wanted = ("≤ " if bar.at_most else "≥ ") + bar.form.format(bar.bar)
    goal = "" if bar.goal is None else bar.form.format(bar.goal)
    try:
        figure = bar.figure(results)
    except NotMeasuredError as why:
        return row | {"wanted": wanted, "aim": goal, "figure": None, "shown": "", "verdict": f"not measured: {why}"}
    holds = figure <= bar.bar if bar.at_most else figure >= bar.bar
    reached = bar.goal is not None and figure >= bar.goal
    verdict = ("holds, and its goal" if reached else "holds") if holds else "missed"
    return row | {
        "wanted": wanted, "aim": goal, "figure": figure, "shown": bar.form.format(figure), "verdict": verdict,
    }  # fmt: skip


def verdicts(document: dict[str, Any]) -> list[dict[str, Any]]:
    """All bars, judged by one run."""
    results = Results(document)
    return [judge(bar, results) for bar in BARS]


def main(arguments: Sequence[str]) -> None:
    """Print the bars of a run."""
    from benchmarks.report import bars_text

    print(bars_text(json.loads(Path(arguments[0]).read_text("utf-8"))))


if __name__ == "__main__":
    main(sys.argv[1:])
