"""Texts for tests: messages of the shared data folder where it is, and generated ones that are always there."""

import gzip
import os
import random
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("RECURRA_DATA") or Path(__file__).parents[3] / "shared" / "data")
SMALL = {
    "hidden_size": 8,
    "embedding_size": 8,
    "max_tokens": 20,
    "max_epochs": 3,
    "batch_size": 16,
    "validation_fraction": 0.2,
    "random_state": 0,
    # Apart from TextClassifier's defaults, which may change with what is found to be better.
    "embedding_dropout": 0.3,
    "head_dropout": 0.3,
    "word_dropout": 0.1,
    "learning_rate": 1e-3,
    "schedule": "constant",
    "warmup": 0.0,
    "patience": 3,
}
GOOD, BAD = ["fine", "lovely", "warm", "witty", "bright"], ["dull", "flat", "cold", "tired", "grim"]
NEUTRAL = ["the", "a", "film", "plot", "actor", "scene", "and", "it", "was", "of"]


def reviews(count, seed=0):
    """Texts and labels that a small network learns in a few epochs: half of the words decide."""
    rng = random.Random(seed)
    labels = [rng.choice(["bad", "good"]) for _ in range(count)]
    texts = [
        " ".join(rng.choice((GOOD if label == "good" else BAD) if rng.random() < 0.3 else NEUTRAL) for _ in range(n))
        for label, n in ((label, rng.randint(4, 25)) for label in labels)
    ]
    return texts, labels


def messages(first, last):
    """Rows of the SMS spam collection: texts and labels."""
    path = SHARED / "sms_spam" / "SMSSpamCollection.tsv.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not in $RECURRA_DATA or ../shared/data")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t", 1) for line in file][first:last]
    return [text for _, text in rows], [label for label, _ in rows]
