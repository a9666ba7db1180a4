"""Trainings of one process or, under torchrun, of several: ``torchrun … tests/train/together.py FOLDER``.

What they leave is compared by test_ranks.py.
"""

import os
import sys
from pathlib import Path

import pytest
from some_texts import SMALL, reviews

from recurra.cells import LSTMCell, learned_state
from recurra.cli.main import main as recurra
from recurra.errors import DataError
from recurra.tasks import LanguageModel, TextClassifier, classify
from recurra.train import ranks

# The last batch of an epoch has one row, fewer than there are processes; so has the last one of the held-out texts.
TEXTS, LABELS = reviews(33)
HELD = reviews(257, seed=1)
STILL = SMALL | dict.fromkeys(("dropout", "embedding_dropout", "head_dropout", "word_dropout"), 0.0)
STILL |= {"schedule": "linear", "adversarial": 0.5, "learning_rate": 0.01, "patience": None}
RANDOM = STILL | {"dropout": 0.2, "head_dropout": 0.3, "word_dropout": 0.1}
STEPS = 3  # in an epoch
# Five streams, of which the last is shorter.
LANGUAGE = {"unit": "char", "hidden_size": 8, "embedding_size": 8, "chunk": 9, "batch_size": 5, "learning_rate": 0.01}
LANGUAGE |= {"max_epochs": 2, "random_state": 0}


def train(folder, chosen, *, stop_after=None, **options):
    """Train, or with `stop_after` cut the run there: in the step after so many."""
    steps, objective = 0, classify.cross_entropy

    def counted(network, batch, **given):
        nonlocal steps
        steps += network.training
        if stop_after is not None and steps > stop_after:
            raise KeyboardInterrupt
        return objective(network, batch, **given)

    classify.cross_entropy = counted
    try:
        TextClassifier(**chosen, progress=True).fit(TEXTS, LABELS, validation=HELD, run_dir=folder, **options)
    except KeyboardInterrupt:
        assert stop_after is not None
    else:
        assert stop_after is None, "the training was over before"
    finally:
        classify.cross_entropy = objective


def began(D, H):
    """A cell whose learned initial state the first chunk of a text alone reads."""
    return learned_state(LSTMCell(D, H))


def language(folder):
    """Train a language model, whose streams are divided among the processes and carry their states there."""
    LanguageModel(**LANGUAGE, cell=began).fit(TEXTS, run_dir=folder)


def command_line(folder):
    """The same by the command, of a table."""
    with (folder / "reviews.csv").open("w", encoding="utf-8") as file:
        file.writelines(["text,label\n", *(f"{text},{label}\n" for text, label in zip(TEXTS, LABELS, strict=True))])
    chosen = ["--hidden-size", "8", "--embedding-size", "8", "--epochs", "1", "--test", "reviews.csv"]
    os.chdir(folder)
    sys.argv = ["recurra", "train", "classify", "reviews.csv", *chosen]
    with pytest.raises(SystemExit) as end:
        recurra()
    assert not end.value.code


def different_data(folder):
    """What differs from process to process cannot be learnt from."""
    rank = ranks.rank()
    with pytest.raises(DataError, match="the processes of torchrun were given different data"):
        TextClassifier(**STILL).fit(TEXTS[rank:], LABELS[rank:], run_dir=folder / "different")


def main(folder):
    """Runs that are whole, and cut in the third epoch; without random numbers, and with them; and by the command."""
    train(folder / "still", STILL)
    train(folder / "still-cut", STILL, stop_after=2 * STEPS + 1)
    train(folder / "random", RANDOM)
    train(folder / "random-cut", RANDOM, stop_after=2 * STEPS + 1)
    train(folder / "random-cut", RANDOM, resume=True)
    different_data(folder)
    language(folder / "language")
    command_line(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
