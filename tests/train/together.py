"""Trainings of one process or, under torchrun, of several: ``torchrun … tests/train/together.py FOLDER``.

What they leave is compared by test_ranks.py.
"""

import sys
from pathlib import Path

from some_texts import SMALL, reviews

from recurra.tasks import TextClassifier, classify

# The last batch of an epoch has one row, fewer than there are processes; so has the last one of the held-out texts.
TEXTS, LABELS = reviews(33)
HELD = reviews(257, seed=1)
STILL = SMALL | dict.fromkeys(("dropout", "embedding_dropout", "head_dropout", "word_dropout"), 0.0)
STILL |= {"schedule": "linear", "adversarial": 0.5, "learning_rate": 0.01, "patience": None}
RANDOM = STILL | {"dropout": 0.2, "head_dropout": 0.3, "word_dropout": 0.1}
STEPS = 3  # in an epoch


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


def main(folder):
    """Four runs: whole, and cut in the third epoch; without random numbers, and with them."""
    train(folder / "still", STILL)
    train(folder / "still-cut", STILL, stop_after=2 * STEPS + 1)
    train(folder / "random", RANDOM)
    train(folder / "random-cut", RANDOM, stop_after=2 * STEPS + 1)
    train(folder / "random-cut", RANDOM, resume=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
