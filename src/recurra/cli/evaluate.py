"""``recurra evaluate``: how well a run does on labelled data."""

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[
        str | None, typer.Argument(help="A table, a folder or a corpus. Default: that of the training.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="The column of the texts.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of the classes.")] = None,
    source: Annotated[str | None, typer.Option(help="The column of what is read, for summaries.")] = None,
    target: Annotated[str | None, typer.Option(help="The column of the references, for summaries.")] = None,
    beam: Annotated[int | None, typer.Option(min=1, help="Hypotheses of the search, for summaries.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where a corpus's files already are.")] = None,
    weights: Annotated[str, typer.Option(help="How matrices are held: float, bfloat16, int8.")] = "float",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """How well a run does: figures of its task on data with the answers.

    Classes: accuracy, macro F1, log loss, each class's figures and the confusion. Summaries: ROUGE, BLEU and chrF with
    intervals, beside the first sentence and a copy. Of a corpus or a folder the test part is taken; of a table, all.

    [bold]Examples[/bold]

    recurra evaluate runs/reviews test.csv

    recurra evaluate runs/imdb-lstm imdb --json

    recurra evaluate runs/imdb-lstm imdb --weights int8

    recurra evaluate runs/mail test.csv --source body --target subject
    """
    from recurra.cli.inputs import read_splits, task_of
    from recurra.engine import options
    from recurra.errors import OptionError
    from recurra.tasks.classify import TextClassifier

    if task_of(run) == "summarize":
        from recurra.cli.summarize import evaluate_summaries

        with options(weights=weights):
            evaluate_summaries(run, data, source=source, target=target, data_dir=data_dir, beam=beam, json=json)
        return
    classifier = TextClassifier.load(run)
    named = data or classifier.about_.get("notes", {}).get("data")
    if not isinstance(named, str):
        raise OptionError("the run does not say what it was trained on", instead=f"recurra evaluate {run} DATA")
    splits = read_splits(named, text=text, label=label, test=None, data_dir=data_dir)
    table = splits.test or splits.train
    with options(weights=weights):
        figures = classifier.evaluate(table.texts, table.labels or [])
    if json:
        print(json_format.dumps({"run": str(run), "data": table.source, **figures}, indent=1))
        return
    print(f"{table.source}: {figures['count']:,} texts")
    for name in ("accuracy", "macro_f1", "log_loss"):
        print(f"{name.replace('_', ' '):10} {figures[name]:.4f}")
    _tables(figures)


def _tables(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    each = Table("class", "precision", "recall", "F1", "texts", box=None)
    for row in figures["classes"]:
        each.add_row(str(row["label"]), *(f"{row[k]:.4f}" for k in ("precision", "recall", "f1")), f"{row['count']:,}")
    names = [str(row["label"]) for row in figures["classes"]]
    confusion = Table("true, down; predicted, across", *names, box=None)
    for name, counts in zip(names, figures["confusion"], strict=True):
        confusion.add_row(name, *(f"{c:,}" for c in counts))
    console = Console(highlight=False)
    for table in (each, confusion):
        console.print()
        console.print(table)
