"""How good summaries or translations are, as figures with intervals, beside what needs no network."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from recurra.errors import MissingDependencyError

RESAMPLES = 1000
ROUGE = ("rouge1", "rouge2", "rougeL")
LONGEST_COPY = 2000  # characters of a source that ROUGE and BLEU read as a summary of itself


def summary_figures(written: Sequence[str], references: Sequence[str], sources: Sequence[str]) -> dict[str, Any]:
    """Figures of summaries, and of two baselines.

    ROUGE is F1 with stemming, as rouge-score computes it; it reads Latin letters without accents and digits alone.
    BLEU and chrF are of the corpus, as sacrebleu computes them with its defaults. All are out of 100, and have an
    interval of 95 % by the bootstrap over texts.

    Args:
        written, references, sources: N of each.

    Returns:
        ``rouge1``, ``rouge2``, ``rougeL``, ``bleu``, ``chrf``, each ``{"value": …, "low": …, "high": …}``; ``count``;
        ``words``, the mean number in ``written`` and in ``references``; and ``baselines``: of ``lead``, the first
        sentence of a source, and ``copy``, all of it, the same five.

    Raises:
        MissingDependencyError: rouge-score or sacrebleu is not installed.
    """
    mean = lambda texts: round(float(np.mean([len(text.split()) for text in texts])), 2)
    return {
        "count": len(written),
        **scores(written, references),
        "words": {"written": mean(written), "references": mean(references)},
        "baselines": {
            "lead": scores([first_sentence(source) for source in sources], references),
            "copy": scores([source[:LONGEST_COPY] for source in sources], references),
        },
    }


def scores(written: Sequence[str], references: Sequence[str]) -> dict[str, dict[str, float]]:
    """The five figures of texts against their references."""
    each = rouge_of_each(written, references)
    found = {name: _interval(each[name]) for name in ROUGE}
    return found | _corpus_scores(written, references)


def rouge_of_each(written: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """ROUGE F1 of each text, out of 100: name -> ``(N,)``."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise _missing("rouge-score") from error
    scorer = RougeScorer([*ROUGE], use_stemmer=True)
    found = [scorer.score(reference, text) for text, reference in zip(written, references, strict=True)]
    return {name: np.array([100 * one[name].fmeasure for one in found]) for name in ROUGE}


def first_sentence(text: str) -> str:
    """The first sentence of a text: up to a stop with white space behind it, or to the end of the paragraph.

    Example:
        >>> first_sentence("It is e.g. this. Not that.\\n\\nNor that.")
        'It is e.g. this.'
    """
    paragraph = re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]
    found = re.match(r".*?(?<!e\.g)(?<!i\.e)[.!?](?=\s)", paragraph, re.S)
    return " ".join((found.group() if found else paragraph).split())


def _corpus_scores(written: Sequence[str], references: Sequence[str]) -> dict[str, dict[str, float]]:
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise _missing("sacrebleu") from error
    found = {}
    for name, metric in {"bleu": BLEU(force=True), "chrf": CHRF()}.items():
        value = metric.corpus_score(list(written), [list(references)], n_bootstrap=RESAMPLES)
        told = json.loads(value.format(6, signature=metric.get_signature().format(), is_json=True))
        # sacrebleu gives the middle of the resamples and half of their interval, where they are above 0
        middle, half = told.get("confidence_mean", 0.0), told.get("confidence_var", 0.0)
        found[name] = {"value": value.score, "low": max(0.0, middle - half), "high": min(100.0, middle + half)}
    return {name: {k: round(float(v), 4) for k, v in one.items()} for name, one in found.items()}


def _interval(values: Any) -> dict[str, float]:
    random = np.random.default_rng(0)
    N = len(values)
    means = [values[random.integers(N, size=N)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": round(float(values.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def _missing(package: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"figures of summaries need {package}, which is not installed", instead='pip install "recurra[tasks]"'
    )
