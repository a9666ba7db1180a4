"""``recurra train classify``: which class a text is of."""

from pathlib import Path
from typing import Annotated, Any

import typer

from recurra.cli.training import DATA_DIR, JSON, OUT, OVERWRITE, PRESET, RESUME, SEED, Network, Training
from recurra.tasks.presets import PRESETS

DATA = "A table (.csv .tsv .jsonl .parquet), a folder of train and test tables, or a corpus: imdb, docstrings."
EXAMPLES = (
    "recurra train classify reviews.csv --text review --label sentiment --out runs/reviews",
    "recurra train classify imdb --preset article --data-dir data",
    "recurra train classify folder_with_train_and_test --cell gru --hidden-size 128 --epochs 5",
    "recurra train classify imdb --out runs/imdb-lstm --resume",
    "torchrun --standalone --nproc-per-node 2 -m recurra train classify reviews.csv",
)


def classify(
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA)],
    text: Annotated[str | None, typer.Option(help="The column of the texts.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of the classes.")] = None,
    test: Annotated[Path | None, typer.Option(help="A table of test texts.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help=DATA_DIR)] = None,
    out: Annotated[Path | None, typer.Option(help=OUT)] = None,
    preset: Annotated[str, typer.Option(help=PRESET.format(", ".join(PRESETS)))] = "default",
    seed: Annotated[int, typer.Option(min=0, help=SEED)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help=RESUME)] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
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
    backward_memory: Annotated[
        str | None, Training(metavar="all|sqrt|BYTES", help="What is kept for the backward pass.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
) -> None:
    """Classify texts: learn from labelled ones, keep the best epoch, and report on test texts where there are any.

    Ctrl-C keeps everything up to the last epoch's end, and prints the command that goes on from there; after any other
    end, such as a power cut, --resume does the same.
    """
    given = dict(locals())  # first: every option of a classifier has its parameter's name here
    import numpy as np

    from recurra.cli.inputs import read_splits, run_folder_for
    from recurra.cli.training import finish, model_of, notes_of, result_of, say_unless, stoppable
    from recurra.tasks.classify import TextClassifier
    from recurra.tasks.given import checked_labels, targets_among
    from recurra.train import ranks

    classifier = model_of(TextClassifier, PRESETS, given)
    splits = ranks.each_after_first(lambda: read_splits(data, text=text, label=label, test=test, data_dir=data_dir))
    if splits.test:  # before a training, not after it
        labels = checked_labels(splits.test.labels or [], len(splits.test.texts))
        targets_among(labels, np.unique(splits.train.labels or []), "the test part")
    place = out or ranks.by_first(lambda: run_folder_for(data, str(classifier.cell), resume=resume))
    say = say_unless(json)
    say(f"data     {splits.train.source}: {len(splits.train.texts):,} texts{_others(splits)}")
    say(f"run      {place}")
    with stoppable(place):
        classifier.fit(
            splits.train.texts,
            splits.train.labels or [],
            validation=(splits.valid.texts, splits.valid.labels or []) if splits.valid else None,
            run_dir=place,
            resume=resume,
            overwrite=overwrite,
            notes=notes_of(given, splits.fingerprint),
        )
    if ranks.rank() > 0:
        return  # the first process evaluates and reports
    result = result_of(classifier, place, say)
    if splits.test:
        figures = classifier.record(place, "test", splits.test.texts, splits.test.labels or [])
        result["test"] = figures
        say(f"test     accuracy {figures['accuracy']:.4f} on {figures['count']:,} texts")
    finish(result, place, "a text of your own", json=json, say=say)


def _others(splits: Any) -> str:
    named = {"held out": splits.valid, "for testing": splits.test}
    return "".join(f", {len(table.texts):,} {word}" for word, table in named.items() if table)
