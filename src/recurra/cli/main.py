"""The command ``recurra``: a table of commands, and what becomes of errors. Imports nothing heavy."""

import importlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup
from typer.main import get_command

from recurra import __version__
from recurra.errors import RecurraError

# name -> module:attribute; a command is a function, a group of commands is a Typer. Shown in this order.
COMMANDS = {
    "demo": "recurra.cli.demo:demo",
    "train": "recurra.cli.train:app",
    "evaluate": "recurra.cli.evaluate:evaluate",
    "predict": "recurra.cli.predict:predict",
    "diagnose": "recurra.cli.diagnose:diagnose",
    "cells": "recurra.cli.cells:cells",
    "explain": "recurra.cli.explain:explain",
    "datasets": "recurra.cli.datasets:datasets",
    "doctor": "recurra.cli.doctor:doctor",
}


class Commands(Mapping[str, Any]):
    """The commands of the table; looking one up imports its file."""

    def __getitem__(self, name: str) -> Any:
        module, attribute = COMMANDS[name].split(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False, rich_markup_mode="rich")
            found.command(name)(function)
        command = get_command(found)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class LazyGroup(TyperGroup):
    """A group whose commands are the table's."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.commands = Commands()  # type: ignore[assignment]  # nothing adds to it


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    invoke_without_command=True,
)


@app.callback()
def recurra(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", hidden=True, help="Show tracebacks; so does RECURRA_DEBUG=1.")
    ] = False,
) -> None:
    """Recurrent networks: write one step of a cell, and train, explain and use it.

    Begin with [bold]recurra demo[/bold]: it trains a text classifier on data that is already here.
    """
    if debug:
        os.environ["RECURRA_DEBUG"] = "1"
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line: an error of Recurra is one message on stderr and exit code 2; Ctrl-C is 130."""
    # torch then asks the kernel for huge pages: half of the time of an LSTM's training step is page faults otherwise.
    # It is read when torch is loaded, so it stands here, before any command.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # paths are printed as they were given, whatever their bytes
    try:
        app(prog_name="recurra")
    except (RecurraError, OSError) as error:
        if os.environ.get("RECURRA_DEBUG"):
            raise
        said = str(error) if isinstance(error, RecurraError) else f"{error.strerror or error}: {error.filename or ''}"
        Console(stderr=True).print(f"error: {said}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
