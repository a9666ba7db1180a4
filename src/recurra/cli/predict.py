"""``recurra predict``: the classes of texts, or their summaries."""

import json as json_format
from pathlib import Path
from typing import Annotated

import typer


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    texts: Annotated[
        str,
        typer.Argument(
            metavar="TEXT|FILE|-",
            help="A text, a table, a file of lines, - for stdin, a folder.",
        ),
    ],
    text: Annotated[str | None, typer.Option(help="The column of the texts, in a table.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="A file is one text to summarise.")] = False,
    beam: Annotated[int | None, typer.Option(min=1, help="Hypotheses of the search, for summaries.")] = None,
    attention: Annotated[Path | None, typer.Option(help="Draw where a summary's words come from: a .png.")] = None,
    weights: Annotated[str, typer.Option(help="How matrices are held: float, bfloat16, int8.")] = "float",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list: an object for each text.")] = False,
) -> None:
    """Use a run on texts: the class and how sure the model is, or the summary, for each.

    [bold]Examples[/bold]

    recurra predict runs/reviews "a fine film, if a little long"

    recurra predict runs/reviews new.csv --text review --json

    cat lines.txt | recurra predict runs/reviews -

    recurra predict runs/mail mail.txt --whole --attention mail.png
    """
    from recurra.cli.inputs import read_texts, task_of
    from recurra.engine import options
    from recurra.tasks.classify import TextClassifier

    if task_of(run) == "summarize":
        from recurra.cli.summarize import predict_summaries

        with options(weights=weights):
            predict_summaries(run, texts, source=text, whole=whole, beam=beam, attention=attention, json=json)
        return
    found = read_texts(texts, text)
    classifier = TextClassifier.load(run)
    with options(weights=weights):
        probabilities = classifier.predict_proba(found)
    classes = classifier.classes_.tolist()
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
        print(json_format.dumps(rows, indent=1, ensure_ascii=False))
        return
    width = max(len(str(c)) for c in classes)
    for i, p, given in zip(best, probabilities, found, strict=True):
        shown = " ".join(given.split())
        print(f"{classes[i]!s:{width}}  {p[i]:6.1%}  {shown if len(shown) <= 80 else shown[:79] + '…'}")
