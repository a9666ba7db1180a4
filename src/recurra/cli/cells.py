"""``recurra cells``: the table of cells."""

from typing import Annotated

import typer

from recurra.train.strict_json import strict_json


def cells(json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Every cell with its states, parameters, products a frame, and whether it is linear in its state.

    [bold]Examples[/bold]

    recurra cells

    recurra cells --json
    """
    from rich.console import Console
    from rich.table import Table

    from recurra.engine.catalogue import WIDTH, catalogue

    entries = catalogue()
    if json:
        print(strict_json({"cells": [entry.to_dict() for entry in entries]}, ensure_ascii=False))
        return
    heads = ("name", "what it is", "state", f"parameters\nD = H = {WIDTH}", "GEMMs\nin a row", "linear")
    table = Table(*heads, box=None)
    for e in entries:
        states = "  ".join(f"{leaf} {shape}" for leaf, shape in e.state.items())
        table.add_row(e.name, e.about, states, f"{e.parameters:,}", str(e.gemm_depth), "yes" if e.linear else "no")
    Console().print(table)
    print("\nrecurra explain NAME says what the engine derives from one.")
