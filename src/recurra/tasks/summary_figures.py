"""How good summaries or translations are, as figures with intervals, beside what needs no network."""

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from recurra.errors import MissingDependencyError

RESAMPLES = 1000
ROUGE = ("rouge1", "rouge2", "rougeL")
NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "bleu": "BLEU", "chrf": "chrF"}
BLIND = "ROUGE reads Latin letters without accents and digits alone: there are none in these references."
LONGEST_COPY = 2000  # characters of a source that ROUGE and BLEU read as a summary of itself


def summary_figures(
    written: Sequence[str], references: Sequence[Sequence[str]], sources: Sequence[str]
) -> dict[str, Any]:
    """Figures of summaries, and of two baselines, against the first reference of each; and against all of them.

    ROUGE is F1 with stemming, as rouge-score computes it; it reads Latin letters without accents and digits alone.
    BLEU and chrF are of the corpus, as sacrebleu computes them with its defaults. All are out of 100, and have an
    interval of 95 % by the bootstrap over texts. Of several references ROUGE takes the one with the highest ROUGE-1, as
    the script of SciTLDR's authors does (Cachola et al., 2020); BLEU and chrF are sacrebleu's for several.

    Args:
        written, sources: N of each. references: N lists of one or several, the first of which is the original.

    Returns:
        ``rouge1``, ``rouge2``, ``rougeL``, ``bleu``, ``chrf``, each ``{"value": …, "low": …, "high": …}``; ``count``;
        ``words``, the mean number in ``written`` and in ``references``; and ``baselines``: of ``lead``, the first
        sentence of a source, and ``copy``, its first 2,000 characters, the same five. Where a source has several
        references, ``best_reference``: the same five against all of them, and ``count``, how many these are.

    Raises:
        MissingDependencyError: rouge-score or sacrebleu is not installed.
    """
    mean = lambda texts: round(float(np.mean([len(text.split()) for text in texts])), 2)
    first, count = [several[:1] for several in references], sum(map(len, references))
    every = {"best_reference": {"count": count, **scores(written, references)}} if count > len(written) else {}
    return {
        "count": len(written),
        **scores(written, first),
        "words": {"written": mean(written), "references": mean(one for (one,) in first)},
        "baselines": {
            "lead": scores([first_sentence(source) for source in sources], first),
            "copy": scores([source[:LONGEST_COPY] for source in sources], first),
        },
        **every,
    }


def rouge_is_blind(references: Sequence[str | Sequence[str]]) -> bool:
    """Whether no reference holds anything that ROUGE reads.

    Example:
        >>> rouge_is_blind(["Москва", ["京都"]]), rouge_is_blind(["Москва 1980"])
        (True, False)
    """
    every = (one for several in references for one in ([several] if isinstance(several, str) else several))
    return not any(re.search("[a-z0-9]", one.lower()) for one in every)


def scores(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, dict[str, float]]:
    """The five figures of texts against their references, one or several each."""
    each = rouge_of_each(written, references)
    found = {name: _interval(each[name]) for name in ROUGE}
    return found | _corpus_scores(written, references)


def rouge_of_each(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """ROUGE F1 of each text, out of 100: name -> ``(N,)``; against the reference with the highest ROUGE-1."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise _missing("rouge-score") from error
    scorer = RougeScorer([*ROUGE], use_stemmer=True)
    found = [
        max((scorer.score(one, text) for one in several), key=lambda score: score["rouge1"].fmeasure)
        for text, several in zip(written, references, strict=True)
    ]
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


def _corpus_scores(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, dict[str, float]]:
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise _missing("sacrebleu") from error
    found = {}
    streams = [*map(list, itertools.zip_longest(*references))]  # None: a text has fewer than another
    for name, metric in {"bleu": BLEU(force=True), "chrf": CHRF()}.items():
        value = _in_plain_numbers(metric).corpus_score(list(written), streams, n_bootstrap=RESAMPLES)
        told = json.loads(value.format(6, signature=metric.get_signature().format(), is_json=True))
        # sacrebleu gives the middle of the resamples and half of their interval, where they are above 0
        middle, half = told.get("confidence_mean", 0.0), told.get("confidence_var", 0.0)
        found[name] = {"value": value.score, "low": max(0.0, middle - half), "high": min(100.0, middle + half)}
    return {name: {k: round(float(v), 4) for k, v in one.items()} for name, one in found.items()}


def _in_plain_numbers(metric: Any) -> Any:
    # Resamples are float32, but for those in which nothing matches: statistics.mean, by sacrebleu, takes no mixture.
    compute = metric._compute_score_from_stats
    metric._compute_score_from_stats = lambda stats: compute([float(number) for number in stats])
    return metric


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
