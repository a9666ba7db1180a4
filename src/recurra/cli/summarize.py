"""A summariser's part of ``recurra evaluate``, ``predict`` and ``diagnose``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recurra.train.strict_json import strict_json

if TYPE_CHECKING:
    from recurra.data import PairSplits

DIAGNOSED = 32  # pairs


def evaluate_summaries(
    run: Path,
    data: str | None,
    source: str | None,
    target: str | None,
    data_dir: Path | None,
    beam: int | None,
    weights: str | None,
    json: bool,
) -> None:
    """``recurra evaluate`` of a summariser's run: of a corpus or a folder the test pairs are taken; of a table, all."""
    from recurra.cli.inputs import JUDGED, data_of, judged, wide_console
    from recurra.engine import options
    from recurra.tasks.summarize import Summarizer

    model = Summarizer.load(run)
    if beam is not None:
        model.set_params(beam=beam)
    named, chosen = data_of(model, run, data, source=source, target=target, test=None, data_dir=data_dir)
    table, part = judged(model, data, read_pair_splits(named, **chosen), source, target)
    references = table.references or table.targets or []
    with options(weights=weights or "float"):
        figures = model.evaluate(table.sources, references)
    if json:
        print(strict_json({"run": str(run), "data": table.origin, "part": part, **figures}))
        return
    from rich.table import Table

    from recurra.tasks.summary_figures import BLIND, NAMES, rouge_is_blind
    from recurra.tasks.summary_report import figure_rows, shown_interval

    shown = Table("", *NAMES.values(), box=None)
    for name, found in figure_rows(figures).items():
        shown.add_row(name, *(shown_interval(found[key]) for key in NAMES))
    print(f"{table.origin}: {figures['count']:,} pairs{JUDGED[part]}")
    print(f"{figures['copy_rate']:.0%} of the words written are copied\n")
    wide_console().print(shown)
    if rouge_is_blind(references):
        print(f"\n{BLIND}")


def predict_summaries(
    run: Path,
    texts: str,
    source: str | None,
    whole: bool,
    beam: int | None,
    attention: Path | None,
    weights: str | None,
    json: bool,
) -> None:
    """``recurra predict`` of a summariser's run: of a text, a table, lines, or a folder of files."""
    from recurra.cli.inputs import read_documents
    from recurra.engine import options
    from recurra.errors import OptionError
    from recurra.tasks.summarize import Summarizer
    from recurra.tasks.summary_pictures import FORMATS, attention_picture
    from recurra.train.files import require_place

    documents = read_documents(texts, source, whole=whole)
    if attention is not None:
        require_place(attention, *FORMATS)
        if len(documents) != 1:
            raise OptionError("a picture of attention is of one text", received=f"{len(documents)} texts")
    model = Summarizer.load(run)
    if beam is not None:
        model.set_params(beam=beam)
    with options(weights=weights or "float"):
        found = model.candidates([document for _, document in documents])
    if json:
        rows = [
            {
                **({"file": name} if name else {}),
                "summary": candidates[0][0],
                "candidates": [{"text": said, "score": round(score, 6)} for said, score in candidates],
            }
            for (name, _), candidates in zip(documents, found, strict=True)
        ]
        print(strict_json(rows, ensure_ascii=False))
    else:
        for (name, _), candidates in zip(documents, found, strict=True):
            print(f"{name}: {candidates[0][0]}" if name else candidates[0][0])
    if attention is not None:  # last: of a summary without words there is no picture
        with options(weights=weights or "float"):
            attended = model.attended(documents[0][1])
        attention_picture(attended, attention)
        print(f"wrote {attention}", file=sys.stderr)


def diagnose_summaries(
    run: Path, data: str | None, source: str | None, target: str | None, data_dir: Path | None, seed: int
) -> Any:
    """The diagnosis of a summariser, encoder and decoder, on some of its pairs."""
    from recurra.cli.inputs import data_of
    from recurra.diagnose import diagnose
    from recurra.tasks.summarize import Summarizer

    model = Summarizer.load(run)
    named, chosen = data_of(model, run, data, source=source, target=target, test=None, data_dir=data_dir)
    splits = read_pair_splits(named, **chosen)
    table = splits.test or splits.train
    read, words = model.batch(table.sources[:DIAGNOSED], (table.targets or [])[:DIAGNOSED])
    return diagnose(model.network_, read, words, seed=seed)


def read_pair_splits(
    data: str, *, source: str | None, target: str | None, test: Path | None, data_dir: Path | None
) -> "PairSplits":
    """The pairs of a table, a folder or a corpus, with another table as its test part where one is given."""
    from dataclasses import replace

    from recurra.data import load_pairs, read_pairs

    splits = load_pairs(data, source=source, target=target, data_dir=data_dir)
    return splits if test is None else replace(splits, test=read_pairs(test, source=source, target=target))


def line_of(figures: dict[str, Any]) -> str:
    """The scores in a line."""
    from recurra.tasks.summary_figures import NAMES

    return ", ".join(f"{label} {figures[name]['value']:.1f}" for name, label in NAMES.items())
