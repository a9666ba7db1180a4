"""Pairs for tests that a small network learns in a few epochs: of each source the word after a mark is to be copied."""

import random

FILLER = "the a report of and it was in on at by for from with about under over near before after".split()
SMALL_SUMMARIZER = {
    "cell": "gru",
    "hidden_size": 24,
    "embedding_size": 24,
    "max_source_tokens": 30,
    "max_target_tokens": 8,
    "dropout": 0.0,
    "embedding_dropout": 0.0,
    "word_dropout": 0.0,
    "label_smoothing": 0.0,
    "learning_rate": 0.01,
    "schedule": "constant",
    "batch_size": 16,
    "max_epochs": 2,
    "validation_fraction": 0.1,
    "beam": 2,
    "random_state": 0,
}


def name(rng):
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3)).capitalize()


def pairs(count, seed=0):
    """Sources with a name that comes once among them, and targets that ask for it: words that no vocabulary has."""
    rng = random.Random(seed)
    sources, targets = [], []
    for _ in range(count):
        words = [rng.choice(FILLER) for _ in range(rng.randint(4, 12))]
        who = name(rng)
        kind = rng.choice(["author", "owner"])
        at = rng.randrange(len(words))
        sources.append(" ".join([*words[:at], kind, who, *words[at:]]) + ".")
        targets.append(f"{'Ask' if kind == 'author' else 'Thank'} {who}!")
    return sources, targets
