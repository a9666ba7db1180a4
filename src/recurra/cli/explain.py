"""``recurra explain``: what the engine derives from a cell, the executor that would run it, and why."""

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any

import typer

from recurra.train.strict_json import strict_json


def explain(
    cell: Annotated[str, typer.Argument(help="A name, such as lstm (`recurra cells` lists them), or FILE.py:Class.")],
    input_size: Annotated[int, typer.Option("--input-size", "-D", metavar="D", min=1)] = 128,
    hidden_size: Annotated[int, typer.Option("--hidden-size", "-H", metavar="H", min=1)] = 128,
    frames: Annotated[int, typer.Option("--frames", "-T", metavar="T", min=1)] = 100,
    batch_size: Annotated[int, typer.Option("--batch-size", "-B", metavar="B", min=1)] = 16,
    resets: Annotated[bool, typer.Option("--resets", help="With states that are reset inside of a sequence.")] = False,
    graph: Annotated[bool, typer.Option("--graph", help="Show the step too, node by node.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Stages of a cell's step, what is saved for the backward pass, and the executor with its reasons.

    A file is run to get at its class: name only files that you trust.

    [bold]Examples[/bold]

    recurra explain lstm

    recurra explain gru -T 500 -B 64 -D 50 -H 100 --json

    recurra explain my_cells.py:Light --graph
    """
    import torch

    from recurra.engine import explain as explained

    made = cell_from(cell, input_size, hidden_size)
    reset = torch.zeros(frames, batch_size, dtype=torch.bool) if resets else None
    with code_of(cell):
        found = explained(made, T=frames, B=batch_size, reset=reset)
    if json:
        print(strict_json(found.to_dict()))
        return
    print(found)
    if graph and found.graph:
        print(f"\n{found.graph}")


def cell_from(name: str, D: int, H: int) -> Any:
    """A cell of the class of that name, from the table or from a file."""
    with code_of(name, instead="a class that is made as Class(input_size, hidden_size)"):
        return _class_from(name)(D, H)


@contextmanager
def code_of(name: str, instead: str = "") -> Iterator[None]:
    """Inside of the block FILE.py:Class runs: it prints to stderr, and what it raises becomes one error of ours."""
    import os
    import sys
    import traceback

    from recurra.errors import CellDefinitionError, RecurraError

    file = name.rpartition(":")[0]
    try:
        with redirect_stdout(sys.stderr):  # stdout may be JSON
            yield
    except (Exception, SystemExit) as error:
        if not file or isinstance(error, RecurraError):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == os.path.abspath(file)]  # noqa: PTH100
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f"{file}:{line}" if line else file
        received = f"{type(error).__name__}: {error}"
        raise CellDefinitionError(f"{where} cannot be run", received=received, instead=instead) from None


def _class_from(name: str) -> Any:
    from recurra.cells import Cell, cell_named
    from recurra.errors import CellDefinitionError, UnknownNameError

    file, colon, attribute = name.rpartition(":")
    if not colon:
        return cell_named(name)
    module = _run_file(file)
    cells = [k for k, v in vars(module).items() if isinstance(v, type) and issubclass(v, Cell) and v is not Cell]
    if attribute not in vars(module):
        raise UnknownNameError(f"cell in {file}", attribute, cells)
    found = getattr(module, attribute)
    if attribute not in cells:
        raise CellDefinitionError(f"{attribute} in {file} is no recurra.Cell", received=type(found).__name__)
    return found


def _run_file(file: str) -> Any:
    import importlib.util
    import sys
    from pathlib import Path

    from recurra.errors import CellDefinitionError

    path = Path(file)
    if not path.is_file() or path.suffix != ".py":
        raise CellDefinitionError("there is no such Python file", received=file, instead="FILE.py:Class")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # type hints of a state are looked up there
    spec.loader.exec_module(module)
    return module
