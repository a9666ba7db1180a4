"""``recurra cells``: the table of cells."""

import json as json_format
from typing import Annotated

import typer


def cells(json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Every cell with its states, parameters, products a frame, and whether it is linear in its state.

    [bold]Examples[/bold]

    recurra cells

    recurra cells --json
    """
    from rich.console import Console
    from rich.table import Table

    from recurra.cells import CELLS
    from recurra.engine import explain
    from recurra.shapes import show

    rows = []
    for name, kind in CELLS.items():
        cell = kind(128, 128)
        found = explain(cell)
        rows.append(
            {
                "name": name,
                "class": kind.__name__,
                "about": (kind.__doc__ or "").strip().split(" (")[0].split(":")[0],
                "state": {leaf: show(shape) for leaf, shape in cell.state_shapes.items()},
                "parameters_at_128": sum(p.numel() for p in cell.parameters()),
                "gemm_depth": found.gemm_depth,
                "linear": found.linear.startswith("yes"),
            }
        )
    if json:
        print(json_format.dumps({"cells": rows}, indent=1))
        return
    table = Table("name", "what it is", "state", "parameters\nD = H = 128", "GEMMs\nin a row", "linear", box=None)
    for row in rows:
        states = "  ".join(f"{leaf} {shape}" for leaf, shape in row["state"].items())  # type: ignore[attr-defined]
        count = f"{row['parameters_at_128']:,}"
        linear = "yes" if row["linear"] else "no"
        table.add_row(str(row["name"]), str(row["about"]), states, count, str(row["gemm_depth"]), linear)
    Console().print(table)
    print("\nrecurra explain NAME says what the engine derives from one.")
