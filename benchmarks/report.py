"""A run for readers: tables, the bars, the README's part and its picture."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import HUGE, LOOP, OURS, TORCH, NotMeasuredError, Results, verdicts
from benchmarks.cases import GRID, GRID_CELLS, UNSEEN, Article, Case
from benchmarks.machine import STATED_FOR, sentence

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
COLUMNS = ("case (T×B×D×H)", "who", "ms", "quartiles", "GFLOP/s", "of peak", "GB/s", "against")
TITLES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN", "layer_norm_lstm": "layer-norm LSTM", UNSEEN: "a cell first seen"}
AGAINST = {cell: TORCH if cell in ("lstm", "gru", "rnn") else LOOP for cell in GRID_CELLS}


def markdown(rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """A table of aligned columns; those of `right` are numbers."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    numbers = {*right}
    rule = ("-" * (w + 1) + (":" if k in numbers else "-") for k, w in enumerate(widths))
    lines.insert(1, "|" + "|".join(rule) + "|")
    return "\n".join(lines)


def table(results: Iterable[dict[str, Any]]) -> str:
    """The figures of some cases, to read or to paste."""
    rows: list[Sequence[str]] = [COLUMNS]
    for result in results:
        for k, (name, f) in enumerate(result["figures"].items()):
            low, high = f["quartiles_ms"]
            against = "" if name == result["baseline"] else f"{f['speed_against_baseline']:.2f}× {result['baseline']}"
            times = (f"{f['ms']:.2f}", f"{low:.2f}–{high:.2f}")
            rates = (f"{f['gflops']:.0f}", f"{f['of_peak']:.0%}", f"{f['gbytes_per_s']:.1f}")
            rows.append(("" if k else result["case"], name, *times, *rates, against))
    return markdown(rows)


def bars_text(document: dict[str, Any]) -> str:
    """Each bar with its figure and whether it holds, and on which machine."""
    rows = [("", "bar", "wanted", "goal", "measured", "verdict")]
    rows += [(v["name"], v["sentence"], v["wanted"], v["aim"], v["shown"], v["verdict"]) for v in verdicts(document)]
    return f"{where(document)}\n\n{markdown(rows)}"


def where(document: dict[str, Any]) -> str:
    """The machine of the bars, and this one."""
    return (
        f"The bars were set on {STATED_FOR}. Measured on {sentence(document['machine'])}: "
        f"{document['machine']['peak_gflops']:.0f} GFLOP/s of multiply-adds, "
        f"{document['machine']['copy_gbytes']:.1f} GB/s of copies."
    )


# --- the README -------------------------------------------------------------------------------------------------------


def readme_part(document: dict[str, Any]) -> str:
    """What stands between the markers: where, the picture, the grid, the bars."""
    machine, results = document["machine"], Results(document)
    peers = ", ".join(f"{name} {version}" for name, version in sorted(document.get("versions", {}).items()))
    return "\n".join(
        [
            BEGIN,
            f"{where(document)} torch {machine['torch']}{', ' if peers else ''}{peers}; commit {machine['commit']}, "
            f"{machine['date'][:10]}{', a quick run' if document.get('quick') else ''}.",
            "",
            "![How many times as fast as torch.nn and as the eager loop, by shape and cell](docs/bench.svg)",
            "",
            "Milliseconds of a training step, and how many times as fast as the other: torch.nn (LSTM, GRU, RNN), or "
            "the eager loop over the same step (a layer-norm LSTM, a cell that the package has never seen). Float32, "
            "medians; interleaved in one run, ratios round by round. `make bench` measures it after the conformance "
            "tests of each cell.",
            "",
            markdown(_grid(results), right=range(1, 1 + len(GRID_CELLS))),
            "",
            markdown(_networks(results), right=range(1, 5)),
            "",
            "| bar | wanted | measured | |",
            "|---|---|---|---|",
            *(
                f"| {v['sentence']} | {v['wanted']} | {v['shown'] or '–'} | {v['verdict']} |"
                for v in verdicts(document)
            ),
            END,
        ]
    )


def _grid(results: Results) -> list[list[str]]:
    def entry(cell: str, shape: tuple[int, int, int, int]) -> str:
        name = Case(cell, *shape).name
        try:
            ours, times = results.ms(name), results.ratio(name, AGAINST[cell])
        except NotMeasuredError:
            return "–"
        ms = f"{ours:,.0f}" if ours >= 100 else f"{ours:.3g}"
        return f"{ms} ({times:.2f}×)"

    head = ["T × B × D × H", *(TITLES[cell] for cell in GRID_CELLS)]
    return [head, *(["×".join(map(str, s)), *(entry(cell, s) for cell in GRID_CELLS)] for s in GRID)]


# Whole networks: title -> the case, and the contender of each column.
NETWORK_COLUMNS = (
    "Recurra",
    "torch.nn",
    "torch.nn, huge pages",
    "torch.nn, packed",
    *("Keras on JAX", "Keras on TensorFlow"),
)
NETWORKS = {
    "the article's network": (
        Article(lengths=False).name,
        (OURS, TORCH, HUGE, "", "Keras on JAX", "Keras on TensorFlow"),
    ),
    "with IMDB's lengths": (Article(lengths=True).name, (OURS, "torch.nn, padded", HUGE, "torch.nn, packed", "", "")),
}


def _networks(results: Results) -> list[list[str]]:
    def entry(case: str, who: str) -> str:
        try:
            return f"{results.ms(case, who):.0f}"
        except NotMeasuredError:
            return "–"

    head = ["ms of a whole training step", *NETWORK_COLUMNS]
    return [head, *([title, *(entry(case, who) for who in whos)] for title, (case, whos) in NETWORKS.items())]


def write_readme(document: dict[str, Any], *, root: Path = ROOT) -> None:
    """Put the figures of a run between the README's markers, and its picture beside the pages.

    Raises:
        ValueError: the README has no markers.
    """
    readme = root / "README.md"
    text = readme.read_text("utf-8")
    if not re.search(f"{BEGIN}.*{END}", text, re.S):
        raise ValueError(f"{readme.name} has no {BEGIN} … {END}")
    part = readme_part(document)
    readme.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: part, text, flags=re.S), "utf-8")
    picture(document, root / "docs" / "bench.svg")


# --- the picture ------------------------------------------------------------------------------------------------------

COLOURS = {"lstm": "#1f6fb4", "gru": "#e07b00", "rnn": "#2a9d4a", "layer_norm_lstm": "#8e44ad", UNSEEN: "#c0392b"}
PANELS = ((TORCH, ("lstm", "gru", "rnn")), (LOOP, ("layer_norm_lstm", UNSEEN)))


def picture(document: dict[str, Any], path: Path) -> None:
    """How many times as fast, by shape and cell: against torch.nn, and for other cells against the eager loop."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {"svg.hashsalt": "recurra", "svg.fonttype": "path", "font.size": 9}
    )  # the same everywhere
    from matplotlib import pyplot

    results = Results(document)
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(9.2, 4.0), sharey=True, width_ratios=(3, 2))
    for panel, (axis, (other, cells)) in enumerate(zip(axes, PANELS, strict=True)):
        height = 0.8 / len(cells)
        for k, cell in enumerate(cells):
            found = [(row, _ratio(results, cell, shape, other)) for row, shape in enumerate(GRID)]
            points = [(row - 0.4 + height * (k + 0.5), ratio) for row, ratio in found if ratio]
            axis.barh([y for y, _ in points], [r - 1 for _, r in points], height * 0.85, left=1, color=COLOURS[cell],
                      label=TITLES[cell])  # fmt: skip
            for y, ratio in points:
                side = "left" if ratio >= 1 else "right"
                axis.annotate(f"{ratio:.{1 if ratio < 10 else 0}f}×", (ratio, y), (3 if ratio >= 1 else -3, 0),
                              textcoords="offset points", ha=side, va="center", fontsize=7)  # fmt: skip
        _scale(axis, [r for cell in cells for s in GRID if (r := _ratio(results, cell, s, other))])
        axis.set_title(f"against {'torch.nn' if panel == 0 else 'the eager loop'}", fontsize=10)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=len(cells), frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(GRID)), ["×".join(map(str, shape)) for shape in GRID])
    axes[0].set_ylabel("T × B × D × H")
    axes[0].invert_yaxis()
    machine = document["machine"]
    figure.suptitle(f"Training step, times as fast; {machine['processor']}, {machine['threads']} threads", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _ratio(results: Results, cell: str, shape: tuple[int, int, int, int], other: str) -> float | None:
    name = Case(cell, *shape).name
    try:
        return results.ratio(name, other)
    except NotMeasuredError:
        return None


def _scale(axis: Any, ratios: Sequence[float]) -> None:
    """Twice as slow and twice as fast are as far from 1."""
    axis.set_xscale("log", base=2)
    axis.axvline(1, color="black", linewidth=0.8)
    low, high = min([0.9, *ratios]), max([2.0, *ratios])
    axis.set_xlim(low / 1.6, high * 1.6)
    ticks = [t for t in (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128) if low / 1.6 <= t <= high * 1.6]
    ticks = ticks if len(ticks) <= 5 else [t for t in ticks if t in (0.25, 1, 4, 16, 64)]
    axis.set_xticks(ticks, [f"{t:g}×" for t in ticks])
    axis.minorticks_off()
    axis.grid(axis="x", alpha=0.25)
    axis.set_axisbelow(True)
