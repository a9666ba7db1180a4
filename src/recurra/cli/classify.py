"""A classifier's part of ``recurra evaluate`` and ``predict``."""

import functools
import sys
import textwrap
from pathlib import Path
from typing import Any

from recurra.train.strict_json import strict_json

DIAGNOSED = 64  # texts
AT_ONCE = 1 << 13  # texts whose answers are written together


def evaluate_classes(
    run: Path,
    data: str | None,
    text: str | None,
    label: str | None,
    data_dir: Path | None,
    weights: str | None,
    json: bool,
) -> None:
    """Accuracy, macro F1, log loss, each class's figures and the confusion on labelled texts."""
    from recurra.cli.inputs import JUDGED, data_of, judged, read_splits
    from recurra.engine import options
    from recurra.tasks.classify import TextClassifier
    from recurra.tasks.given import checked_labels, targets_among

    classifier = TextClassifier.load(run)
    named, chosen = data_of(classifier, run, data, text=text, label=label, test=None, data_dir=data_dir)
    table, part = judged(classifier, data, read_splits(named, **chosen), text, label)
    # A table's labels are strings, whatever the classes are.
    labels = checked_labels(table.labels or [], len(table.texts))
    known = classifier.classes_[targets_among(labels, classifier.classes_.astype(str))]
    with options(weights=weights or "float"):
        figures = classifier.evaluate(table.texts, known)
    if json:
        print(strict_json({"run": str(run), "data": table.source, "part": part, **figures}))
        return
    print(f"{table.source}: {figures['count']:,} texts{JUDGED[part]}")
    for name in ("accuracy", "macro_f1", "log_loss"):
        print(f"{name.replace('_', ' '):10} {figures[name]:.4f}")
    _tables(figures)


def predict_classes(run: Path, texts: str, text: str | None, weights: str | None, follow: bool, json: bool) -> None:
    """The class of each text, and how sure the model is; as JSON a list, or, of texts as they come, a line each."""
    from recurra.cli.inputs import lines_as_they_come, read_texts
    from recurra.engine import options
    from recurra.errors import OptionError
    from recurra.tasks.classify import TextClassifier

    if follow and text is not None:
        raise OptionError(
            "--follow reads lines, which have no columns", received=f"--text {text}", instead="--follow without --text"
        )
    given = [] if follow else read_texts(texts, text)
    pieces = lines_as_they_come(texts) if follow else (given[k : k + AT_ONCE] for k in range(0, len(given), AT_ONCE))
    classifier = TextClassifier.load(run)
    classes = classifier.classes_.tolist()
    width = max(len(str(c)) for c in classes)
    before = "[\n"  # the first row of a list
    for found in pieces:
        with options(weights=weights or "float"):
            probabilities = classifier.predict_proba(found)
        best = probabilities.argmax(1)
        if json:
            rows = [
                {
                    "label": classes[i],
                    "confidence": round(float(p[i]), 6),
                    "probabilities": {str(c): round(float(v), 6) for c, v in zip(classes, p, strict=True)},
                }
                for i, p in zip(best, probabilities, strict=True)
            ]
            dumped = functools.partial(strict_json, ensure_ascii=False, indent=None if follow else 1)
            for row in map(dumped, rows):
                print(row if follow else before + textwrap.indent(row, " "), end="\n" if follow else "")
                before = ",\n"
            sys.stdout.flush()
            continue
        for i, p, one in zip(best, probabilities, found, strict=True):
            shown = " ".join(one.split())
            print(f"{classes[i]!s:{width}}  {p[i]:6.1%}  {shown if len(shown) <= 80 else shown[:79] + '…'}")
        sys.stdout.flush()
    if json and not follow:
        print("\n]")


def _tables(figures: dict[str, Any]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    from recurra.cli.inputs import wide_console

    names = [Text(str(row["label"])) for row in figures["classes"]]  # not markup, whatever brackets they hold
    each = Table("class", "precision", "recall", "F1", "texts", box=None)
    for name, row in zip(names, figures["classes"], strict=True):
        each.add_row(name, *(f"{row[k]:.4f}" for k in ("precision", "recall", "f1")), f"{row['count']:,}")
    confusion = Table("true, down; predicted, across", *map(Column, names), box=None)
    for name, counts in zip(names, figures["confusion"], strict=True):
        confusion.add_row(name, *(f"{c:,}" for c in counts))
    console = wide_console()
    for table in (each, confusion):
        console.print()
        console.print(table)


def diagnose_classes(
    run: Path, data: str | None, text: str | None, label: str | None, data_dir: Path | None, seed: int
) -> Any:
    """The diagnosis of a classifier on some of its texts."""
    from recurra.cli.inputs import data_of, read_splits
    from recurra.data import collate, encode
    from recurra.diagnose import diagnose
    from recurra.tasks.classify import TextClassifier

    classifier = TextClassifier.load(run)
    named, chosen = data_of(classifier, run, data, text=text, label=label, test=None, data_dir=data_dir)
    splits = read_splits(named, **chosen)
    texts = (splits.test or splits.train).texts[:DIAGNOSED]
    batch = collate(encode(classifier.tokenizer_, texts, max_tokens=classifier.max_tokens), [0] * len(texts))
    return diagnose(classifier.network_, batch.tokens, batch.lengths, seed=seed)
