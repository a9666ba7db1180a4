"""``recurra train summarize``: a short text of a longer one, or a translation."""

import functools
from pathlib import Path
from typing import Annotated

import typer

from recurra.cli.training import DATA_DIR, JSON, OUT, OVERWRITE, PRESET, RESUME, SEED, Network, Training
from recurra.tasks.summary_presets import SUMMARY_PRESETS

Search = functools.partial(typer.Option, rich_help_panel="Search")
CORPORA = "docstrings, aeslc, scitldr, django_pseudocode, multi30k, tatoeba"
DATA = f"A table (.csv .tsv .jsonl .parquet), a folder of train and test tables, or a corpus: {CORPORA}."
EXAMPLES = (
    "recurra train summarize mail.csv --source body --target subject --out runs/mail",
    "recurra train summarize docstrings --preset demo",
    "recurra train summarize tatoeba --preset tatoeba --data-dir data",
    "recurra train summarize folder_with_train_and_test --cell gru --hidden-size 256 --epochs 5",
    "recurra train summarize mail.csv --out runs/mail --resume",
)


def summarize(
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA)],
    source: Annotated[str | None, typer.Option(help="The column of what is read.")] = None,
    target: Annotated[str | None, typer.Option(help="The column of what is to be written.")] = None,
    test: Annotated[Path | None, typer.Option(help="A table of test pairs.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help=DATA_DIR)] = None,
    out: Annotated[Path | None, typer.Option(help=OUT)] = None,
    preset: Annotated[str, typer.Option(help=PRESET.format(", ".join(SUMMARY_PRESETS)))] = "default",
    seed: Annotated[int, typer.Option(min=0, help=SEED)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help=RESUME)] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
    cell: Annotated[str | None, Network(help="The cell, by name: recurra cells lists them.")] = None,
    hidden_size: Annotated[int | None, Network(metavar="H", help="Units a direction; of the decoder too.")] = None,
    num_layers: Annotated[int | None, Network(metavar="L", help="Layers of the encoder.")] = None,
    embedding_size: Annotated[int | None, Network(metavar="D", help="Width of word vectors.")] = None,
    attention: Annotated[str | None, Network(help="multiplicative or additive.")] = None,
    copying: Annotated[bool | None, Network(help="Whether words of a source can be copied.")] = None,
    input_feeding: Annotated[bool | None, Network(help="Whether the decoder reads what it last attended to.")] = None,
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
    backward_memory: Annotated[
        str | None, Training(metavar="all|sqrt|BYTES", help="What is kept for the backward pass.")
    ] = None,
    beam: Annotated[int | None, Search(metavar="K", help="Hypotheses; 1 is greedy.")] = None,
    length_penalty: Annotated[float | None, Search(help="Above 0 prefers longer ones.")] = None,
    no_repeat: Annotated[int | None, Search(metavar="N", help="Write no run of N words twice; 0: do.")] = None,
    max_length: Annotated[int | None, Search(help="Write at most so many words.")] = None,
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
) -> None:
    """Summarise or translate: learn from pairs of texts, keep the best epoch, and report on test pairs where there are.

    The columns say what is learnt: an article and its headline, a sentence and its translation. Ctrl-C keeps everything
    up to the last epoch's end, and prints the command that goes on from there.
    """
    given = dict(locals())  # first: every option of a summariser has its parameter's name here
    from recurra.cli.inputs import run_folder_for
    from recurra.cli.summarize import line_of, read_pair_splits
    from recurra.cli.training import finish, model_of, notes_of, result_of, say_unless, stoppable
    from recurra.tasks.summarize import Summarizer
    from recurra.train import ranks

    model = model_of(Summarizer, SUMMARY_PRESETS, given)
    splits = ranks.by_first(lambda: read_pair_splits(data, source=source, target=target, test=test, data_dir=data_dir))
    place = out or ranks.by_first(lambda: run_folder_for(data, str(model.cell), resume=resume))
    say = say_unless(json)
    held = {"held out": splits.valid, "for testing": splits.test}
    others = "".join(f", {len(table):,} {word}" for word, table in held.items() if table)
    say(f"data     {splits.train.origin}: {len(splits.train):,} pairs{others}")
    say(f"run      {place}")
    with stoppable(place):
        model.fit(
            splits.train.sources,
            splits.train.targets or [],
            validation=(splits.valid.sources, splits.valid.targets or []) if splits.valid else None,
            run_dir=place,
            resume=resume,
            overwrite=overwrite,
            notes=notes_of(given, splits.fingerprint),
        )
    if ranks.rank() > 0:
        return  # the first process evaluates and reports
    result = result_of(model, place, say)
    if splits.test:
        references = splits.test.references or splits.test.targets or []
        result["test"] = figures = model.record(place, "test", splits.test.sources, references)
        say(f"test     {line_of(figures)} on {figures['count']:,} pairs")
        if best := figures.get("best_reference"):
            say(f"best of  {line_of(best)} on {best['count']:,} references")
        say(f"lead     {line_of(figures['baselines']['lead'])}")
    finish(result, place, "a text of your own", json=json, say=say)
