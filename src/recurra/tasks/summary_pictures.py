"""Pictures of what a summariser wrote: lengths, and where words come from."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from recurra.data.written_words import JOINER
from recurra.train.files import require_place, write_atomically
from recurra.train.pictures import STYLE, TRAIN, VALID, drawable, svg

if TYPE_CHECKING:
    from recurra.tasks.summarize import Attended

MOST_WORDS = 80  # of a source in a picture; a word takes 0.22 inches
NARROWEST = 3.6  # inches: the title's
FORMATS = "a picture of attention", (".png", ".svg", ".pdf")


def lengths(written: Sequence[str], references: Sequence[str]) -> str:
    """How many words what was written and its references have, as an `<svg>` element."""
    counts = [[len(text.split()) for text in side] for side in (written, references)]
    edges = np.arange(0, max(max(side) for side in counts) + 2) - 0.5
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.0), layout="constrained")
        axes = figure.subplots()
        for side, label, colour in zip(counts, ("written", "reference"), (VALID, TRAIN), strict=True):
            axes.hist(side, bins=edges.tolist(), histtype="step", color=colour, label=label, linewidth=1.5)
        axes.set(xlabel="words", ylabel="texts")
        axes.legend()
        return svg(figure, "lengths")


def attention_picture(attended: "Attended", path: Path) -> None:
    """Draw source words × written words; written words that were copied have a frame where they come from.

    Args:
        attended: of :meth:`recurra.tasks.Summarizer.attended`. path: a ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        OptionError: the name ends otherwise, or its folder is not there.
    """
    require_place(path, *FORMATS)
    S, T = min(len(attended.source), MOST_WORDS), len(attended.written)
    weights = attended.weights[:, :S]
    figure = Figure(figsize=(max(NARROWEST, 1.6 + 0.22 * S), 1.8 + 0.26 * T), layout="constrained")
    axes = figure.subplots()
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(S), [_shown(word) for word in attended.source[:S]], rotation=90, fontsize=8)
    axes.set_yticks(range(T), [_shown(word) for word in attended.written], fontsize=8)
    copied = 0
    for row, part in enumerate(attended.copied):
        if part > 0.5:
            same = [word == attended.written[row] for word in attended.source]
            column = int(np.where(same, attended.weights[row], -1).argmax())
            if same[column] and column < S:
                frame = mpl.patches.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False)
                frame.set(edgecolor="tab:orange", linewidth=2)
                axes.add_patch(frame)
            axes.get_yticklabels()[row].set_color("tab:orange")
            copied += 1
    axes.set(xlabel="source", ylabel="written")
    axes.set_title(f"attention; orange: copied ({copied} of {T} words)", fontsize=9)
    out = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Date": None}} if path.suffix.lower() == ".svg" else {}
    figure.savefig(out, format=path.suffix.lower()[1:], dpi=150, **options)
    write_atomically(path, out.getvalue())


def _shown(word: str) -> str:
    plain = drawable(word.replace(JOINER, "").replace("$", r"\$"))
    return plain if len(plain) <= 18 else plain[:17] + "…"
