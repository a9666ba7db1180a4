"""Summaries and translations on the command line: training, evaluation, prediction."""

import functools
import json as json_format
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recurra.tasks.summary_presets import SUMMARY_PRESETS

if TYPE_CHECKING:
    from recurra.data import PairSplits

Network = functools.partial(typer.Option, rich_help_panel="Network")
Training = functools.partial(typer.Option, rich_help_panel="Training")
Search = functools.partial(typer.Option, rich_help_panel="Search")
CORPORA = "docstrings, aeslc, scitldr, django_pseudocode, multi30k, tatoeba"
DATA = f"A table (.csv .tsv .jsonl .parquet), a folder of train and test tables, or a corpus: {CORPORA}."
PRESET = f"Settings by name: {', '.join(SUMMARY_PRESETS)}; options below change single ones."
EPILOG = (
    "Examples:\n\n"
    "recurra train summarize mail.csv --source body --target subject --out runs/mail\n\n"
    "recurra train summarize docstrings --preset demo\n\n"
    "recurra train summarize tatoeba --preset tatoeba --data-dir data\n\n"
    "recurra train summarize folder_with_train_and_test --cell gru --hidden-size 256 --epochs 5\n\n"
    "recurra train summarize mail.csv --out runs/mail --resume"
)
SHOWN = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "bleu": "BLEU", "chrf": "chrF"}


def summarize(
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA)],
    source: Annotated[str | None, typer.Option(help="The column of what is read.")] = None,
    target: Annotated[str | None, typer.Option(help="The column of what is to be written.")] = None,
    test: Annotated[Path | None, typer.Option(help="A table of test pairs.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where a corpus's files already are.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. Default: runs/<data>-<cell>.")] = None,
    preset: Annotated[str, typer.Option(help=PRESET)] = "default",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same weights.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard the run that --out already holds.")] = False,
    cell: Annotated[str | None, Network(help="The cell, by name: recurra cells lists them.")] = None,
    hidden_size: Annotated[int | None, Network(metavar="H", help="Units a direction; of the decoder too.")] = None,
    num_layers: Annotated[int | None, Network(metavar="L", help="Layers of the encoder.")] = None,
    embedding_size: Annotated[int | None, Network(metavar="D", help="Width of word vectors.")] = None,
    attention: Annotated[str | None, Network(help="multiplicative or additive.")] = None,
    copying: Annotated[bool | None, Network(help="Whether words of a source can be copied.")] = None,
    unit: Annotated[str | None, Network(help="word, or subword: pieces of words.")] = None,
    vocab_size: Annotated[int | None, Network(metavar="V", help="At most so many words.")] = None,
    min_count: Annotated[int | None, Network(help="Rarer words are unknown; they can be copied.")] = None,
    lowercase: Annotated[bool | None, Network(help="Read and write small letters.")] = None,
    max_source_tokens: Annotated[int | None, Network(metavar="S", help="Read the first so many words.")] = None,
    max_target_tokens: Annotated[int | None, Network(metavar="T", help="Learn to write so many words.")] = None,
    dropout: Annotated[float | None, Training(help="Between layers and before the scores.")] = None,
    embedding_dropout: Annotated[float | None, Training(help="On word vectors.")] = None,
    word_dropout: Annotated[float | None, Training(help="Part of words that are hidden.")] = None,
    label_smoothing: Annotated[float | None, Training(help="Part of the loss that is spread over all words.")] = None,
    learning_rate: Annotated[float | None, Training(help="The highest one.")] = None,
    weight_decay: Annotated[float | None, Training(help="Of AdamW.")] = None,
    clip: Annotated[float | None, Training(help="Scale gradients down to this norm.")] = None,
    schedule: Annotated[str | None, Training(help="Of the learning rate: constant, linear, cosine.")] = None,
    warmup: Annotated[float | None, Training(help="Part of all steps in which it rises.")] = None,
    batch_size: Annotated[int | None, Training(metavar="B", help="Pairs in a batch.")] = None,
    max_epochs: Annotated[int | None, Training("--epochs", help="At most so many.")] = None,
    patience: Annotated[int | None, Training(help="Stop after so many epochs without a better one.")] = None,
    validation_fraction: Annotated[float | None, Training(help="Held out of the training pairs; 0: none.")] = None,
    accelerator: Annotated[str | None, Training(help="auto, cpu, cuda or mps.")] = None,
    beam: Annotated[int | None, Search(metavar="K", help="Hypotheses; 1 is greedy.")] = None,
    length_penalty: Annotated[float | None, Search(help="Above 0 prefers longer ones.")] = None,
    no_repeat: Annotated[int | None, Search(metavar="N", help="Write no run of N words twice; 0: do.")] = None,
    max_length: Annotated[int | None, Search(help="Write at most so many words.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object; progress stays on stderr.")] = False,
) -> None:
    """Summarise or translate: learn from pairs of texts, keep the best epoch, and report on test pairs where there are.

    The columns say what is learnt: an article and its headline, a sentence and its translation. Ctrl-C keeps everything
    up to the last epoch's end, and prints the command that goes on from there.
    """
    given = dict(locals())  # first: every option of a summariser has its parameter's name here
    from recurra.cli.inputs import run_folder_for
    from recurra.cli.train import say_how_to_resume
    from recurra.tasks.summarize import Summarizer
    from recurra.train import ranks
    from recurra.train.settings import require_name

    require_name("preset", preset, SUMMARY_PRESETS)
    chosen = {k: given[k] for k in Summarizer().get_params() if given.get(k) is not None}
    model = Summarizer(**{**SUMMARY_PRESETS[preset], **chosen, "random_state": seed, "progress": True})
    model._checked()
    splits = ranks.by_first(lambda: _splits(data, source=source, target=target, test=test, data_dir=data_dir))
    place = out or ranks.by_first(lambda: run_folder_for(data, str(model.cell), resume=resume))
    quiet = json or ranks.rank() > 0
    say: Callable[[str], None] = (lambda _: None) if quiet else lambda line: print(line, flush=True)
    say(f"data     {splits.train.origin}: {len(splits.train):,} pairs{_others(splits)}")
    say(f"run      {place}")
    try:
        model.fit(
            splits.train.sources,
            splits.train.targets or [],
            validation=(splits.valid.sources, splits.valid.targets or []) if splits.valid else None,
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
    kept = model.history_[model.best_epoch_ - 1]
    result: dict[str, Any] = {"run": str(place), "best_epoch": model.best_epoch_, "epochs": len(model.history_)}
    result |= {k: kept[k] for k in ("valid_loss",) if k in kept}
    said = f": valid loss {kept['valid_loss']:.4f}" if "valid_loss" in kept else ""
    say(f"best     epoch {model.best_epoch_} of {len(model.history_)}{said}")
    if splits.test:
        result["test"] = figures = model.record(place, "test", splits.test.sources, splits.test.targets or [])
        say(f"test     {_line(figures)} on {figures['count']:,} pairs")
        say(f"lead     {_line(figures['baselines']['lead'])}")
    say(f"report   {place / 'report.html'}")
    say(f"next     {shlex.join(['recurra', 'predict', str(place), 'a text of your own'])}")
    if json:
        print(json_format.dumps(result, indent=1))


def evaluate_summaries(
    run: Path,
    data: str | None = None,
    *,
    source: str | None = None,
    target: str | None = None,
    data_dir: Path | None = None,
    beam: int | None = None,
    json: bool = False,
) -> None:
    """``recurra evaluate`` of a summariser's run: of a corpus or a folder the test pairs are taken; of a table, all."""
    from recurra.errors import OptionError
    from recurra.tasks.summarize import Summarizer

    model = Summarizer.load(run)
    if beam is not None:
        model.set_params(beam=beam)
    named = data or model.about_.get("notes", {}).get("data")
    if not isinstance(named, str):
        raise OptionError("the run does not say what it was trained on", instead=f"recurra evaluate {run} DATA")
    splits = _splits(named, source=source, target=target, test=None, data_dir=data_dir)
    table = splits.test or splits.train
    figures = model.evaluate(table.sources, table.targets or [])
    if json:
        print(json_format.dumps({"run": str(run), "data": table.origin, **figures}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    from recurra.tasks.summary_report import shown_interval

    shown = Table("", *SHOWN.values(), box=None)
    baselines = figures["baselines"]
    for name, found in {"this run": figures, "first sentence": baselines["lead"], "copy": baselines["copy"]}.items():
        shown.add_row(name, *(shown_interval(found[key]) for key in SHOWN))
    print(f"{table.origin}: {figures['count']:,} pairs; {figures['copy_rate']:.0%} of the words written are copied\n")
    Console(highlight=False).print(shown)


def predict_summaries(
    run: Path,
    given: str,
    *,
    source: str | None = None,
    whole: bool = False,
    beam: int | None = None,
    attention: Path | None = None,
    json: bool = False,
) -> None:
    """``recurra predict`` of a summariser's run: of a text, a table, lines, or a folder of files."""
    from recurra.cli.inputs import read_documents
    from recurra.errors import OptionError
    from recurra.tasks.summarize import Summarizer

    texts = read_documents(given, source, whole=whole)
    model = Summarizer.load(run)
    if beam is not None:
        model.set_params(beam=beam)
    found = model.candidates([text for _, text in texts])
    if attention is not None:
        from recurra.tasks.summary_pictures import attention_picture

        if len(texts) != 1:
            raise OptionError("a picture of attention is of one text", received=f"{len(texts)} texts")
        attention_picture(model.attended(texts[0][1]), attention)
        print(f"wrote {attention}", file=sys.stderr)
    if json:
        rows = [
            {
                **({"file": name} if name else {}),
                "summary": candidates[0][0],
                "candidates": [{"text": text, "score": round(score, 6)} for text, score in candidates],
            }
            for (name, _), candidates in zip(texts, found, strict=True)
        ]
        print(json_format.dumps(rows, indent=1, ensure_ascii=False))
        return
    for (name, _), candidates in zip(texts, found, strict=True):
        print(f"{name}: {candidates[0][0]}" if name else candidates[0][0])


def _splits(
    data: str, *, source: str | None, target: str | None, test: Path | None, data_dir: Path | None
) -> "PairSplits":
    from dataclasses import replace

    from recurra.data import load_pairs, read_pairs

    splits = load_pairs(data, source=source, target=target, data_dir=data_dir)
    return splits if test is None else replace(splits, test=read_pairs(test, source=source, target=target))


def _others(splits: "PairSplits") -> str:
    named = {"held out": splits.valid, "for testing": splits.test}
    return "".join(f", {len(table):,} {word}" for word, table in named.items() if table)


def _line(figures: dict[str, Any]) -> str:
    return ", ".join(f"{label} {figures[name]['value']:.1f}" for name, label in SHOWN.items())
