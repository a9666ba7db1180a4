"""``recurra evaluate``: how well a run does on data."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[
        str | None, typer.Argument(help="A table, a text, a folder or a corpus. Default: that of the training.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="The column of the texts.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of the classes.")] = None,
    source: Annotated[str | None, typer.Option(help="The column of what is read, for summaries.")] = None,
    target: Annotated[str | None, typer.Option(help="The column of the references, for summaries.")] = None,
    beam: Annotated[int | None, typer.Option(min=1, help="Hypotheses of the search, for summaries.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where a corpus's files already are.")] = None,
    weights: Annotated[str | None, typer.Option(help="How matrices are held: float, bfloat16, int8.")] = None,
    adapt: Annotated[
        float | None, typer.Option(min=0, help="Learn from the text as it is read, at this rate; of language models.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """How well a run does: of a classifier accuracy, macro F1, log loss, each class's figures and the confusion on
    labelled texts; of a language model perplexity, nats a token and bits a character of a text; of a summariser ROUGE,
    BLEU and chrF with intervals, beside the first sentence and a copy.

    Of a corpus or a folder the test texts are taken; of a table or a file, all.

    [bold]Examples[/bold]

    recurra evaluate runs/reviews test.csv

    recurra evaluate runs/imdb-lstm imdb --json

    recurra evaluate runs/imdb-lstm imdb --weights int8

    recurra evaluate runs/book another-book.txt

    recurra evaluate runs/book another-book.txt --adapt 0.1

    recurra evaluate runs/mail test.csv --source body --target subject
    """
    given = {k: v for k, v in locals().items() if k != "run"}
    from recurra.cli.of_task import EVALUATE, call

    call(EVALUATE, run, given)
