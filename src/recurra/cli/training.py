"""What the commands that train have in common: groups of options, printing, and what is said when one is stopped."""

import functools
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from recurra.train.strict_json import strict_json

Network = functools.partial(typer.Option, rich_help_panel="Network")
Training = functools.partial(typer.Option, rich_help_panel="Training")
ORIGIN = ("data", "test", "text", "label", "source", "target", "data_dir")  # options that say what is read
PRESET = "Settings by name: {}; options below change single ones."
DATA_DIR = "Where a corpus's files already are."
OUT = "The run folder. Default: runs/<data>-<cell>."
SEED = "The same seed gives the same weights."
RESUME = "Go on with a run that was stopped."
OVERWRITE = "Discard the run that --out already holds."
JSON = "Print one JSON object; progress stays on stderr."


def model_of(kind: Any, presets: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> Any:
    """A model with the settings of a preset, and those among a command's options that were given.

    Args:
        kind: the class of the model; its settings have the names of the command's options.
        presets: by their names.
        given: every option of the command, ``preset`` and ``seed`` among them.

    Raises:
        UnknownNameError: there is no such preset.
    """
    from recurra.train.settings import require_name

    require_name("preset", given["preset"], presets)
    chosen = {k: given[k] for k in kind().get_params() if given.get(k) is not None}
    if str(chosen.get("backward_memory", "")).isdecimal():
        chosen["backward_memory"] = int(chosen["backward_memory"])
    model = kind(**{**presets[given["preset"]], **chosen, "random_state": given["seed"], "progress": True})
    model.settings()
    model._checked().require_accelerator()
    return model


def notes_of(given: Mapping[str, Any], fingerprint: str | None) -> dict[str, Any]:
    """What a run keeps of its data: `recurra evaluate RUN` finds them by it, from any folder.

    Args:
        given: every option of the command. fingerprint: of the corpus, where it is one.
    """
    from recurra.data import CORPORA
    from recurra.data.pairs import PAIRS

    kept = {name: str(given[name]) for name in ORIGIN if given.get(name) is not None}
    if kept["data"] not in {*CORPORA, *PAIRS}:
        kept["data"] = str(Path(kept["data"]).absolute())
    for name in ("test", "data_dir"):
        if name in kept:
            kept[name] = str(Path(kept[name]).absolute())
    return {**kept, "preset": given["preset"], "corpus_fingerprint": fingerprint}


def say_unless(quiet: bool) -> Callable[[str], None]:
    """What prints a line at once; nothing, if JSON is wanted or another process prints."""
    from recurra.train import ranks

    return (lambda _: None) if quiet or ranks.rank() > 0 else lambda line: print(line, flush=True)


@contextmanager
def stoppable(place: Path) -> Iterator[None]:
    """Inside of the block a training runs; where that is stopped, how to resume it is printed."""
    from recurra.train import ranks

    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if ranks.rank() == 0:
            _say_how_to_resume(stop, place)
        raise typer.Exit(130 if isinstance(stop, KeyboardInterrupt) else 143) from None


def result_of(model: Any, place: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """What a training came to: its best epoch and that epoch's held-out figures, printed and returned."""
    kept = model.history_[model.best_epoch_ - 1]
    figures = {k: kept[k] for k in ("valid_accuracy", "valid_loss") if k in kept}
    said = ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in figures.items())
    say(f"best     epoch {model.best_epoch_} of {len(model.history_)}{': ' if said else ''}{said}")
    return {"run": str(place), "best_epoch": model.best_epoch_, "epochs": len(model.history_), **figures}


def finish(result: Mapping[str, Any], place: Path, example: str, *, json: bool, say: Callable[[str], None]) -> None:
    """Say where the report is and what to try next, or print the result as JSON."""
    say(f"report   {place / 'report.html'}")
    say(f"next     {shlex.join(['recurra', 'predict', str(place), example])}")
    if json:
        print(strict_json(result))


def _say_how_to_resume(stop: BaseException, place: Path) -> None:
    print(f"\n{str(stop) if isinstance(stop, KeyboardInterrupt) and str(stop) else 'stopped'}", file=sys.stderr)
    arguments = [a for a in sys.argv[1:] if a not in ("--resume", "--overwrite")]
    if not any(a == "--out" or a.startswith("--out=") for a in arguments):
        arguments += ["--out", str(place)]
    print(f"resume with:  {shlex.join([*_command(), *arguments, '--resume'])}", file=sys.stderr)


def _command() -> list[str]:
    from recurra.train import ranks

    several = ["torchrun", "--standalone", f"--nproc-per-node={ranks.count()}", "-m", "recurra"]
    return ["recurra"] if ranks.count() == 1 else several
