"""The report of a text classifier: what :mod:`recurra.train.report` shows of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recurra.engine import explain
from recurra.train.pictures import LARGEST_CONFUSION, accuracy_by_length, confusion, curves
from recurra.train.report import PLAN, Section, flat, page, preformatted, table

if TYPE_CHECKING:
    from recurra.tasks.classify import TextClassifier

MISTAKES = 15
EXCERPT = 280  # characters


def classification_report(
    classifier: "TextClassifier",
    split: str,
    texts: Sequence[str],
    targets: np.ndarray[Any, np.dtype[np.int64]],
    probabilities: np.ndarray[Any, np.dtype[np.float64]],
    figures: dict[str, Any],
) -> str:
    """The page of a fitted classifier.

    Args:
        split: what the texts are: ``"test"``, ``"held out"`` or ``"training"``.
        texts: N of them. targets: (N,) their classes' indices. probabilities: (N, classes).
        figures: of :func:`recurra.tasks.figures.classification_figures` on these.
    """
    names = [str(c) for c in classifier.classes_]
    predicted = probabilities.argmax(1)
    wrong = np.flatnonzero(predicted != targets)
    surest = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:MISTAKES]
    mistakes = [
        (_excerpt(texts[i]), names[targets[i]], names[predicted[i]], float(probabilities[i, predicted[i]]))
        for i in surest
    ]
    plan = explain(classifier.network_.recurrent, T=int(classifier.max_tokens), B=int(classifier.batch_size))
    seconds = classifier.about_.get("seconds", 0.0)
    each = [(str(c["label"]), c["precision"], c["recall"], c["f1"], c["count"]) for c in figures["classes"]]
    given = classifier.about_["data"]["texts"]
    return page(
        "Text classification",
        f"{len(names)} classes, learnt from {given:,} texts; figures on {len(texts):,} {split} texts",
        {
            f"{split} accuracy": f"{figures['accuracy']:.1%}",
            "macro F1": f"{figures['macro_f1']:.3f}",
            "log loss": f"{figures['log_loss']:.3f}",
            "kept epoch": f"{classifier.best_epoch_} of {len(classifier.history_)}",
            "trained for": f"{seconds / 60:.1f} min",
        },
        [
            Section(
                "Training",
                curves(classifier.history_, classifier.best_epoch_),
                "The weights of the kept epoch are the model.",
            ),
            Section(
                f"Confusion, {split} texts",
                confusion(figures["confusion"], names),
                "Rows are true classes, columns predicted; the stronger a colour, the larger the part of the class."
                + (f" The {LARGEST_CONFUSION} classes that are confused most." * (len(names) > LARGEST_CONFUSION)),
            ),
            Section("Classes", table(["class", "precision", "recall", "F1", "texts"], each)),
            Section(
                "Most confident mistakes",
                table(["text", "true", "predicted", "confidence"], mistakes) if mistakes else "<p>None.</p>",
                "Where the model was surest and wrong.",
            ),
            Section(
                "Accuracy against length",
                accuracy_by_length([len(t.split()) for t in texts], list(predicted == targets)),
                f"The model reads the last {classifier.max_tokens} words of a text.",
            ),
            Section("The plan", preformatted(str(plan)), PLAN),
            Section(
                "Settings and machine",
                table(["name", "value"], flat({**classifier.settings(), **classifier.about_})),
            ),
        ],
    )


def _excerpt(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= EXCERPT else words[: EXCERPT // 2] + " … " + words[-EXCERPT // 2 :]
