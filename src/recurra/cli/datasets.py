"""``recurra datasets``: the corpora that are known by name."""

import json as json_format
from typing import Annotated

import typer


def datasets(json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """The corpora that [bold]recurra train[/bold] knows by name: what they hold, and where they come from.

    [bold]Examples[/bold]

    recurra datasets

    recurra train classify imdb --data-dir FOLDER
    """
    from dataclasses import fields

    from recurra.data.corpora import CORPORA, Corpus

    about = [field.name for field in fields(Corpus) if field.name != "load"]
    found = {name: {key: getattr(corpus, key) for key in about} for name, corpus in CORPORA.items()}
    if json:
        print(json_format.dumps(found, indent=1))
        return
    for name, corpus in found.items():
        print(name)
        for key, value in corpus.items():
            print(f"  {key:12} {value}")
