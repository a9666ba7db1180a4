"""``recurra predict``: what a run says to a text."""

from pathlib import Path
from typing import Annotated

import typer


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    texts: Annotated[
        str,
        typer.Argument(
            metavar="TEXT|FILE|-",
            help="A text, a table, a file of one text a line, or - for stdin; for a language model the prompt, as it "
            "is, a line end behind it included; for summaries a folder too.",
        ),
    ],
    text: Annotated[str | None, typer.Option(help="The column of the texts, in a table.")] = None,
    source: Annotated[str | None, typer.Option(help="The same, for summaries.")] = None,
    weights: Annotated[str | None, typer.Option(help="How matrices are held: float, bfloat16, int8.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="A file is one text to summarise.")] = False,
    beam: Annotated[int | None, typer.Option(min=1, help="Hypotheses of the search, for summaries.")] = None,
    attention: Annotated[Path | None, typer.Option(help="Draw where a summary's words come from: a .png.")] = None,
    length: Annotated[int | None, typer.Option(min=0, help="Tokens to write. Default: 200.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0: the likeliest token. Default: 1.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw among the likeliest so many.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw among the likeliest of this probability.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same text.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Answer each line of stdin, or of a file that grows, as it comes.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Classify texts: the class and how sure the model is, for each. Or write on from a prompt, token by token. Or
    summarise, or translate, texts.

    [bold]Examples[/bold]

    recurra predict runs/reviews "a fine film, if a little long"

    recurra predict runs/reviews new.csv --text review --json

    cat lines.txt | recurra predict runs/reviews -

    recurra predict runs/reviews messages.log --follow --json

    recurra predict runs/mail mail.txt --whole --attention mail.png

    recurra predict runs/book "Once upon" --length 300 --temperature 0.8 --top-p 0.95 --seed 1
    """
    given = {k: v for k, v in locals().items() if k != "run"}
    from recurra.cli.of_task import PREDICT, call

    call(PREDICT, run, given)
