"""``recurra datasets``: the corpora that are known by name."""

from pathlib import Path
from typing import Annotated

import typer

from recurra.train.strict_json import strict_json

SHOWN = ("description", "task", "size", "origin", "terms")


def datasets(
    data_dir: Annotated[Path | None, typer.Option(help="A folder to look for them in.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The corpora that [bold]recurra train[/bold] knows by name: what they hold, their terms, and where they are.

    They are looked for in --data-dir; without it in $RECURRA_DATA, and in the cache.

    [bold]Examples[/bold]

    recurra datasets

    recurra datasets --data-dir FOLDER --json

    recurra train classify imdb --data-dir FOLDER
    """
    from recurra.data import CORPORA, PAIRS

    found = {}
    corpora = CORPORA | PAIRS | CORPORA  # docstrings is in both: its row in the first says what it is in the second
    for name, corpus in corpora.items():
        place = corpus.find(data_dir)
        found[name] = {key: getattr(corpus, key) for key in SHOWN} | {"found": str(place) if place else None}
    if json:
        print(strict_json(found))
        return
    for name, row in found.items():
        print(name)
        for key, value in row.items():
            print(f"  {key:12} {value or _absent(corpora[name].absent, data_dir)}")


def _absent(what: str, data_dir: Path | None) -> str:
    return f"not in {data_dir}" if data_dir else f"not yet; on first use: {what}"
