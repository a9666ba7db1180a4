"""The report of a summariser: what :mod:`recurra.train.report` shows of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recurra.engine import explain
from recurra.tasks.summary_figures import BLIND, NAMES, ROUGE, rouge_is_blind, rouge_of_each
from recurra.tasks.summary_pictures import lengths
from recurra.train.pictures import curves
from recurra.train.report import Section, flat, page, preformatted, table

if TYPE_CHECKING:
    from recurra.tasks.summarize import Summarizer

EXAMPLES, WORST = 20, 10
EXCERPT = 400  # characters of a source


def summary_report(
    model: "Summarizer",
    split: str,
    pairs: Sequence[tuple[str, str]],
    written: Sequence[str],
    figures: dict[str, Any],
) -> str:
    """The page of a fitted summariser.

    Args:
        split: what the pairs are: ``"test"``, ``"held out"`` or ``"training"``.
        pairs: N sources and their first references. written: N texts. figures: of :meth:`Summarizer.evaluate` on these.
    """
    references = [reference for _, reference in pairs]
    each = rouge_of_each(written, [[one] for one in references])
    order = np.argsort(each["rougeL"], kind="stable")
    even = np.unique(np.linspace(0, len(pairs) - 1, min(EXAMPLES, len(pairs))).round().astype(int))
    given, seconds = model.about_["data"]["pairs"], model.about_.get("seconds", 0.0)
    network, B = model.network_, int(model.batch_size)
    frames = 1 if model.input_feeding else int(model.max_target_tokens)
    plan = (
        f"{explain(network.encoder, T=int(model.max_source_tokens), B=B)}\n\n{explain(network.writer, T=frames, B=B)}"
    )
    rows = figure_rows(figures)
    return page(
        "Summaries",
        f"learnt from {given:,} pairs; figures on {len(pairs):,} {split} pairs",
        {
            **{f"{split} {NAMES[name]}": f"{figures[name]['value']:.1f}" for name in ("rouge1", "rougeL", "bleu")},
            "copied words": f"{figures['copy_rate']:.0%}",
            "kept epoch": f"{model.best_epoch_} of {len(model.history_)}",
            "trained for": f"{seconds / 60:.1f} min",
        },
        [
            Section(
                "Training", curves(model.history_, model.best_epoch_), "Loss: −log P of a word, the mean over targets."
            ),
            Section(
                f"Scores, {split} pairs",
                table(
                    ["", *NAMES.values()],
                    [(label, *(shown_interval(found[name]) for name in NAMES)) for label, found in rows.items()],
                ),
                "Out of 100, with intervals of 95 % by the bootstrap; beside the first sentence of a source, and its "
                "first 2,000 characters." + (f" {BLIND}" if rouge_is_blind(references) else ""),
            ),
            Section(
                "Examples",
                _examples(pairs, written, each["rougeL"], even),
                "Evenly spaced over the pairs, not chosen.",
            ),
            Section("The worst", _examples(pairs, written, each["rougeL"], order[:WORST]), "By ROUGE-L."),
            Section(
                "Lengths",
                lengths(written, references),
                f"{figures['words']['written']} words are written on average, references have "
                f"{figures['words']['references']}.",
            ),
            Section(
                "The plan",
                preformatted(plan),
                "How this machine's processor runs the encoder's first layer and the decoder's second one, and why"
                + (
                    "; the decoder frame by frame, since with input feeding each waits for what the one before said."
                    if model.input_feeding
                    else "."
                ),
            ),
            Section("Settings and machine", table(["name", "value"], flat({**model.settings(), **model.about_}))),
        ],
    )


def figure_rows(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What :meth:`Summarizer.evaluate` gives, as rows of a table of scores."""
    best = figures.get("best_reference", {})
    return {
        "this run": figures,
        **({f"best of {best['count']:,} references": best} if best else {}),
        "first sentence": figures["baselines"]["lead"],
        "copy": figures["baselines"]["copy"],
    }


def shown_interval(figure: dict[str, float]) -> str:
    """A figure with its interval.

    Example:
        >>> shown_interval({"value": 31.25, "low": 30.0, "high": 32.4})
        '31.2 (30.0–32.4)'
    """
    return f"{figure['value']:.1f} ({figure['low']:.1f}–{figure['high']:.1f})"


def _examples(
    pairs: Sequence[tuple[str, str]], written: Sequence[str], scores: Any, rows: Sequence[int] | np.ndarray[Any, Any]
) -> str:
    found = [(_excerpt(pairs[i][0]), pairs[i][1], written[i], f"{scores[i]:.0f}") for i in rows]
    return table(["source", "reference", "written", ROUGE[-1].replace("rouge", "ROUGE-")], found)


def _excerpt(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= EXCERPT else words[: EXCERPT - 1] + "…"
