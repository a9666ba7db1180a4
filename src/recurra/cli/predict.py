"""``recurra predict``: the classes of texts."""

import json as json_format
from pathlib import Path
from typing import Annotated

import typer


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    texts: Annotated[
        str, typer.Argument(metavar="TEXT|FILE|-", help="A text, a table, a file of one text a line, or - for stdin.")
    ],
    text: Annotated[str | None, typer.Option(help="The column of the texts, in a table.")] = None,
    weights: Annotated[str, typer.Option(help="How matrices are held: float, bfloat16, int8.")] = "float",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list: an object for each text.")] = False,
) -> None:
    """Classify texts: the class and how sure the model is, for each.

    [bold]Examples[/bold]

    recurra predict runs/reviews "a fine film, if a little long"

    recurra predict runs/reviews new.csv --text review --json

    cat lines.txt | recurra predict runs/reviews -
    """
    from recurra.cli.inputs import read_texts
    from recurra.engine import options
    from recurra.tasks.classify import TextClassifier

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
