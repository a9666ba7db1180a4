"""Pictures of a training as SVG that takes its colours from the page around it, light or dark."""

import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Colours that stand for the page's CSS variables; matplotlib knows no variables, so they are replaced in the SVG.
INK, TRAIN, VALID, GRID = "#010203", "#010204", "#010205", "#010206"
VARIABLES = {INK: "var(--ink)", TRAIN: "var(--first)", VALID: "var(--second)", GRID: "var(--line)"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be selected, and a screen reader reads it
    "font.family": "sans-serif",
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.titlecolor"), INK),
    "axes.edgecolor": GRID,
    "grid.color": GRID,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
}
DRAWN = ("loss", "accuracy", "perplexity")  # figures of an epoch
LARGEST_NUMBERED = 20  # classes; counts in the cells of a larger confusion matrix could not be read
LARGEST_CONFUSION = 40  # classes; of more those that are confused most are drawn


def curves(history: Sequence[Mapping[str, float]], best_epoch: int) -> str:
    """Loss, and what else of :data:`DRAWN` there is, over epochs, of training and held-out data; the best is marked."""
    names = [n for n in DRAWN if n in history[0]]
    epochs = [h["epoch"] for h in history]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(names), 3.2), layout="constrained")
        for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
            axes.plot(epochs, [h[name] for h in history], color=TRAIN, marker="o", markersize=3, label="training")
            if f"valid_{name}" in history[0]:
                values = [h[f"valid_{name}"] for h in history]
                axes.plot(epochs, values, color=VALID, marker="o", markersize=3, label="held out")
                axes.plot(
                    best_epoch, values[epochs.index(best_epoch)], "o", color=VALID, markersize=9, fillstyle="none"
                )
            axes.axvline(best_epoch, color=INK, linewidth=0.8, linestyle=":", label="kept epoch")
            axes.set(title=name, xlabel="epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            if name == "accuracy":
                axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axes.legend()
        return svg(figure, "curves")


def confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """The confusion matrix: shades are parts of the true class, numbers are texts."""
    matrix = np.asarray(counts)
    parts = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    if len(names) > LARGEST_CONFUSION:
        wrong = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
        drawn = np.sort(np.argsort(-wrong, kind="stable")[:LARGEST_CONFUSION])
        matrix, parts, names = matrix[np.ix_(drawn, drawn)], parts[np.ix_(drawn, drawn)], [names[i] for i in drawn]
    side = min(9.0, 2.2 + 0.45 * len(names))
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(side + 0.6, side), layout="constrained")
        axes = figure.subplots()
        for (row, column), count in np.ndenumerate(matrix):
            colour = VALID if row == column else TRAIN
            cell = mpl.patches.Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, linewidth=0)
            cell.set_alpha(float(0.04 + 0.61 * parts[row, column]))
            axes.add_patch(cell)
            if len(names) <= LARGEST_NUMBERED:
                axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=9 if len(names) <= 10 else 7)
        shown = [_short(n) for n in names]
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="predicted", ylabel="true")
        axes.set_xticks(range(len(names)), shown, rotation=90 if len(names) > 3 else 0)
        axes.set_yticks(range(len(names)), shown)
        axes.set_aspect("equal")
        return svg(figure, "confusion")


def accuracy_by_length(lengths: Sequence[int], right: Sequence[bool], bins: int = 8) -> str:
    """Accuracy against the length of a text in words, in bins of equally many texts, with intervals of 95 %."""
    order, correct = np.asarray(lengths), np.asarray(right)
    edges = np.unique(np.quantile(order, np.linspace(0, 1, bins + 1)))
    which = np.clip(np.searchsorted(edges, order, side="right") - 1, 0, max(0, len(edges) - 2))
    middles, rates, errors = [], [], []
    for i in np.unique(which):
        inside = which == i
        middle, low, high = _wilson(int(correct[inside].sum()), int(inside.sum()))
        middles.append(float(np.median(order[inside])))
        rates.append(middle)
        errors.append((middle - low, high - middle))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.errorbar(middles, rates, yerr=np.transpose(errors), color=VALID, marker="o", capsize=3)
        axes.axhline(float(correct.mean()), color=INK, linewidth=0.8, linestyle=":", label="all texts")
        axes.set(xlabel="words in the text (median of each bin)", ylabel="accuracy")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend()
        return svg(figure, "lengths")


def _wilson(right: int, count: int) -> tuple[float, float, float]:
    """A proportion and its interval of 95 % (Wilson, 1927)."""
    z, rate = 1.96, right / count
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return rate, min(rate, float(middle - half)), max(rate, float(middle + half))


def _short(name: str) -> str:
    plain = drawable(name)
    return plain if len(plain) <= 18 else plain[:17] + "…"


def drawable(text: str) -> str:
    """A text without what matplotlib's own fonts have no picture of: they have Latin, Greek and Cyrillic letters."""
    return "".join(c if ord(c) < 0x0600 and unicodedata.category(c)[0] != "C" else "□" for c in text)


def svg(figure: Figure, salt: str) -> str:
    """The figure as an `<svg>` element; `salt` keeps its ids apart from those of others in the same page."""
    for words in figure.findobj(mpl.text.Text):
        words.set_parse_math(False)  # a class may be called $x_$
    out = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(out, format="svg", metadata=metadata)
    text = out.getvalue()
    text = text[text.index("<svg") :]  # without the XML declaration and the address of its DTD
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return re.sub(r'(id|xlink:href|clip-path)="(#|url\(#)?', rf"\g<0>{salt}-", text)
