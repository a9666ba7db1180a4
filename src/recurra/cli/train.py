"""``recurra train``: fit a model for a task, and leave a run folder."""

import functools
import json as json_format
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from recurra.cli import summarize as summaries
from recurra.tasks.presets import PRESETS

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Train a model for a task; leaves a run folder.",
)

Network = functools.partial(typer.Option, rich_help_panel="Network")
Training = functools.partial(typer.Option, rich_help_panel="Training")
DATA = "A table (.csv .tsv .jsonl .parquet), a folder of train and test tables, or a corpus: imdb, docstrings."
PRESET = f"Settings by name: {', '.join(PRESETS)}; options below change single ones."


@app.callback()
def train() -> None:
    """Train a model for a task; leaves a run folder."""


@app.command(
    epilog="Examples:\n\n"
    "recurra train classify reviews.csv --text review --label sentiment --out runs/reviews\n\n"
    "recurra train classify imdb --preset article --data-dir data\n\n"
    "recurra train classify folder_with_train_and_test --cell gru --hidden-size 128 --epochs 5\n\n"
    "recurra train classify imdb --out runs/imdb-lstm --resume\n\n"
    "torchrun --standalone --nproc-per-node 2 -m recurra train classify reviews.csv"
)
def classify(
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA)],
    text: Annotated[str | None, typer.Option(help="The column of the texts.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of the classes.")] = None,
    test: Annotated[Path | None, typer.Option(help="A table of test texts.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where a corpus's files already are.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. Default: runs/<data>-<cell>.")] = None,
    preset: Annotated[str, typer.Option(help=PRESET)] = "default",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same weights.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard the run that --out already holds.")] = False,
    cell: Annotated[str | None, Network(help="The cell, by name: recurra cells lists them.")] = None,
    hidden_size: Annotated[int | None, Network(metavar="H", help="Units of each direction.")] = None,
    num_layers: Annotated[int | None, Network(metavar="L", help="Recurrent layers.")] = None,
    bidirectional: Annotated[bool | None, Network(help="Read from both ends.")] = None,
    embedding_size: Annotated[int | None, Network(metavar="D", help="Width of word vectors.")] = None,
    word_vectors: Annotated[str | None, Network(help="How they begin: cooccurrence, random.")] = None,
    vocab_size: Annotated[int | None, Network(metavar="V", help="At most so many words.")] = None,
    max_tokens: Annotated[int | None, Network(metavar="T", help="Read the last so many words.")] = None,
    pooling: Annotated[str | None, Network(help="last, mean, max, or several joined by _.")] = None,
    dropout: Annotated[float | None, Training(help="Between layers.")] = None,
    embedding_dropout: Annotated[float | None, Training(help="On word vectors.")] = None,
    head_dropout: Annotated[float | None, Training(help="Before the last layer.")] = None,
    word_dropout: Annotated[float | None, Training(help="Part of words replaced by the unknown one.")] = None,
    adversarial: Annotated[float | None, Training(help="Move word vectors against the loss by so much.")] = None,
    learning_rate: Annotated[float | None, Training(help="The highest one.")] = None,
    weight_decay: Annotated[float | None, Training(help="Of AdamW.")] = None,
    clip: Annotated[float | None, Training(help="Scale gradients down to this norm.")] = None,
    schedule: Annotated[str | None, Training(help="Of the learning rate: constant, linear, cosine.")] = None,
    warmup: Annotated[float | None, Training(help="Part of all steps in which it rises.")] = None,
    batch_size: Annotated[int | None, Training(metavar="B", help="Texts in a batch.")] = None,
    max_epochs: Annotated[int | None, Training("--epochs", help="At most so many.")] = None,
    patience: Annotated[int | None, Training(help="Stop after so many epochs without a better one.")] = None,
    monitor: Annotated[str | None, Training(help="What makes an epoch the best: valid_accuracy, valid_loss.")] = None,
    validation_fraction: Annotated[float | None, Training(help="Held out of the training texts; 0: none.")] = None,
    accelerator: Annotated[str | None, Training(help="auto, cpu, cuda or mps.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object; progress stays on stderr.")] = False,
) -> None:
    """Classify texts: learn from labelled ones, keep the best epoch, and report on test texts where there are any.

    Ctrl-C keeps everything up to the last epoch's end, and prints the command that goes on from there; after any other
    end, such as a power cut, --resume does the same.
    """
    given = dict(locals())  # first: every option of a classifier has its parameter's name here
    from recurra.cli.inputs import read_splits, run_folder_for
    from recurra.tasks.classify import TextClassifier
    from recurra.train import ranks
    from recurra.train.settings import require_name

    require_name("preset", preset, PRESETS)
    chosen = {k: given[k] for k in TextClassifier().get_params() if given.get(k) is not None}
    classifier = TextClassifier(**{**PRESETS[preset], **chosen, "random_state": seed, "progress": True})
    classifier.settings()
    splits = ranks.by_first(lambda: read_splits(data, text=text, label=label, test=test, data_dir=data_dir))
    place = out or ranks.by_first(lambda: run_folder_for(data, str(classifier.cell), resume=resume))
    quiet = json or ranks.rank() > 0
    say: Callable[[str], None] = (lambda _: None) if quiet else lambda line: print(line, flush=True)
    say(f"data     {splits.train.source}: {len(splits.train.texts):,} texts{_others(splits)}")
    say(f"run      {place}")
    try:
        classifier.fit(
            splits.train.texts,
            splits.train.labels or [],
            validation=(splits.valid.texts, splits.valid.labels or []) if splits.valid else None,
            run_dir=place,
            resume=resume,
            overwrite=overwrite,
            notes={"data": data, "preset": preset, "corpus_fingerprint": splits.fingerprint},
        )
    except (KeyboardInterrupt, SystemExit) as stop:
        if ranks.rank() == 0:
            say_how_to_resume(stop, place)
        raise typer.Exit(130 if isinstance(stop, KeyboardInterrupt) else 143) from None
    if ranks.rank() > 0:
        return  # the first process evaluates and reports
    result: dict[str, Any] = {
        "run": str(place),
        "best_epoch": classifier.best_epoch_,
        "epochs": len(classifier.history_),
    }
    kept = classifier.history_[classifier.best_epoch_ - 1]
    result |= {k: kept[k] for k in ("valid_accuracy", "valid_loss") if k in kept}
    said = ", ".join(f"{k.replace('_', ' ')} {kept[k]:.4f}" for k in ("valid_accuracy", "valid_loss") if k in kept)
    say(f"best     epoch {classifier.best_epoch_} of {len(classifier.history_)}{': ' if said else ''}{said}")
    if splits.test:
        figures = classifier.record(place, "test", splits.test.texts, splits.test.labels or [])
        result["test"] = figures
        say(f"test     accuracy {figures['accuracy']:.4f} on {figures['count']:,} texts")
    say(f"report   {place / 'report.html'}")
    say(f"next     {shlex.join(['recurra', 'predict', str(place), 'a text of your own'])}")
    if json:
        print(json_format.dumps(result, indent=1))


app.command(epilog=summaries.EPILOG)(summaries.summarize)


def _others(splits: Any) -> str:
    named = {"held out": splits.valid, "for testing": splits.test}
    return "".join(f", {len(table.texts):,} {word}" for word, table in named.items() if table)


def say_how_to_resume(stop: BaseException, place: Path) -> None:
    """Print, on stderr, why a training stopped and the command that goes on with it."""
    print(f"\n{str(stop) if isinstance(stop, KeyboardInterrupt) and str(stop) else 'stopped'}", file=sys.stderr)
    arguments = [a for a in sys.argv[1:] if a not in ("--resume", "--overwrite")]
    if not any(a == "--out" or a.startswith("--out=") for a in arguments):
        arguments += ["--out", str(place)]
    print(f"resume with:  {shlex.join([*_command(), *arguments, '--resume'])}", file=sys.stderr)


def _command() -> list[str]:
    from recurra.train import ranks

    several = ["torchrun", "--standalone", f"--nproc-per-node={ranks.count()}", "-m", "recurra"]
    return ["recurra"] if ranks.count() == 1 else several
