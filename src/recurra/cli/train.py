"""``recurra train``: fit a model for a task, and leave a run folder."""

from collections.abc import Callable

import typer

from recurra.cli.train_classify import EXAMPLES as CLASSIFY
from recurra.cli.train_classify import classify
from recurra.cli.train_language import EXAMPLES as LANGUAGE
from recurra.cli.train_language import language
from recurra.cli.train_summarize import EXAMPLES as SUMMARIZE
from recurra.cli.train_summarize import summarize

# function -> its examples; the function's name is the command's. Shown in this order.
TASKS: dict[Callable[..., None], tuple[str, ...]] = {
    classify: CLASSIFY,
    language: LANGUAGE,
    summarize: SUMMARIZE,
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Train a model for a task; leaves a run folder.",
)


@app.callback()
def train() -> None:
    """Train a model for a task; leaves a run folder."""


for function, examples in TASKS.items():
    app.command(epilog="Examples:\n\n" + "\n\n".join(examples))(function)
