"""``recurra train language``: the token that comes next."""

from pathlib import Path
from typing import Annotated, Any

import typer

from recurra.cli.training import DATA_DIR, JSON, OUT, OVERWRITE, PRESET, RESUME, SEED, Network, Training
from recurra.tasks.presets import LANGUAGE_PRESETS

DATA = "A text file, a folder of texts, a table's column, or a corpus: ptb, tinyshakespeare, docstrings."
EXAMPLES = (
    "recurra train language book.txt --unit char --out runs/book",
    "recurra train language ptb --preset ptb-small --data-dir data",
    "recurra train language folder_with_train_valid_and_test --cell gru --hidden-size 512",
    "recurra train language ptb --out runs/ptb-lstm --resume",
)


def language(
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA)],
    text: Annotated[str | None, typer.Option(help="The column of the texts, in a table.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help=DATA_DIR)] = None,
    out: Annotated[Path | None, typer.Option(help=OUT)] = None,
    preset: Annotated[str, typer.Option(help=PRESET.format(", ".join(LANGUAGE_PRESETS)))] = "default",
    seed: Annotated[int, typer.Option(min=0, help=SEED)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help=RESUME)] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
    unit: Annotated[str | None, Network(help="What a token is: word, char, subword.")] = None,
    vocab_size: Annotated[int | None, Network(metavar="V", help="At most so many tokens.")] = None,
    cell: Annotated[str | None, Network(help="The cell, by name: recurra cells lists them.")] = None,
    hidden_size: Annotated[int | None, Network(metavar="H", help="Units of each layer.")] = None,
    num_layers: Annotated[int | None, Network(metavar="L", help="Recurrent layers.")] = None,
    embedding_size: Annotated[int | None, Network(metavar="D", help="Width of token vectors.")] = None,
    tied: Annotated[bool | None, Network(help="Score tokens by the matrix that embeds them.")] = None,
    dropout: Annotated[float | None, Training(help="Between layers.")] = None,
    input_dropout: Annotated[float | None, Training(help="On token vectors.")] = None,
    output_dropout: Annotated[float | None, Training(help="On the last layer's outputs.")] = None,
    embedding_dropout: Annotated[float | None, Training(help="Part of the vocabulary.")] = None,
    weight_dropout: Annotated[float | None, Training(help="Part of the recurrent weights.")] = None,
    activation_penalty: Annotated[float | None, Training(help="Times the mean square of outputs.")] = None,
    temporal_penalty: Annotated[float | None, Training(help="Times that of their change.")] = None,
    chunk: Annotated[int | None, Training(metavar="T", help="Frames that gradients run back.")] = None,
    learning_rate: Annotated[float | None, Training(help="The highest one.")] = None,
    optimizer: Annotated[str | None, Training(help="adamw, or sgd, whose learning rates are near 20.")] = None,
    weight_decay: Annotated[float | None, Training(help="Of either.")] = None,
    clip: Annotated[float | None, Training(help="Scale gradients down to this norm.")] = None,
    schedule: Annotated[str | None, Training(help="Of the learning rate: constant, linear, cosine.")] = None,
    warmup: Annotated[float | None, Training(help="Part of all steps in which it rises.")] = None,
    batch_size: Annotated[int | None, Training(metavar="B", help="Parts of the text read side by side.")] = None,
    max_epochs: Annotated[int | None, Training("--epochs", help="At most so many.")] = None,
    patience: Annotated[int | None, Training(help="Stop after so many epochs without a better one.")] = None,
    validation_fraction: Annotated[float | None, Training(help="Last part of the text, held out; 0: none.")] = None,
    accelerator: Annotated[str | None, Training(help="auto, cpu, cuda or mps.")] = None,
    backward_memory: Annotated[
        str | None, Training(metavar="all|sqrt|BYTES", help="What is kept for the backward pass.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
) -> None:
    """Model a language: learn which word, character or subword comes next, and write on from a prompt.

    Ctrl-C keeps everything up to the last epoch's end, and prints the command that goes on from there; after any other
    end, such as a power cut, --resume does the same.
    """
    given = dict(locals())  # first: every option of a model has its parameter's name here
    from recurra.cli.inputs import run_folder_for
    from recurra.cli.training import finish, model_of, notes_of, result_of, say_unless, stoppable
    from recurra.data import Texts, load_text
    from recurra.tasks.language import LanguageModel
    from recurra.train import ranks

    model = model_of(LanguageModel, LANGUAGE_PRESETS, given)
    splits = ranks.each_after_first(lambda: load_text(data, text=text, data_dir=data_dir))
    place = out or ranks.by_first(lambda: run_folder_for(data, str(model.cell), resume=resume))
    say = say_unless(json)
    say(f"data     {splits.train.source}: {_sizes(splits)}")
    say(f"run      {place}")
    with stoppable(place):
        model.fit(
            splits.train.texts,
            validation=splits.valid.texts if splits.valid else None,
            run_dir=place,
            resume=resume,
            overwrite=overwrite,
            notes=notes_of(given, splits.fingerprint),
        )
    if ranks.rank() > 0:
        return  # the first process evaluates and reports
    result = result_of(model, place, say)
    if splits.test:
        figures = model.record(place, "test", splits.test.texts)
        result["test"] = figures
        say(f"test     {described(figures)}")
    assert isinstance(splits.train.texts, Texts)  # load_text reads no others
    first = splits.train.texts.text(0)
    begins = [word for word in str(first.part(0, first.offset(80))).split() if not word.startswith("-")]
    finish(result, place, begins[0] if begins else "", json=json, say=say)


def described(figures: dict[str, Any]) -> str:
    """The figures of a text in one line."""
    return (
        f"perplexity {figures['perplexity']:.2f}, {figures['nats_per_token']:.4f} nats a token, "
        f"{figures['bits_per_character']:.3f} bits a character, on {figures['tokens']:,} tokens"
    )


def _sizes(splits: Any) -> str:
    named = {"": splits.train, " held out": splits.valid, " for testing": splits.test}
    return ", ".join(f"{t.texts.characters:,} characters{word}" for word, t in named.items() if t)
