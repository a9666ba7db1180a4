"""Settings of text classification by name. Imports nothing, so that a command's help can list them."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # TextClassifier's own defaults.
    "default": {},
    # The program that the article on recurrent networks ends with, its errors mended: the state that is read is the
    # last valid frame's, and nothing pads the labels.
    "article": {
        "cell": "lstm",
        "vocab_size": 10_000,
        "max_tokens": 500,
        "embedding_size": 50,
        "word_vectors": "random",
        "hidden_size": 100,
        "num_layers": 2,
        "bidirectional": False,
        "pooling": "last",
        "dropout": 0.0,
        "embedding_dropout": 0.0,
        "head_dropout": 0.0,
        "word_dropout": 0.0,
        "adversarial": 0.0,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "clip": 1.0,
        "schedule": "constant",
        "warmup": 0.0,
        "batch_size": 64,
        "validation_fraction": 0.2,
        "max_epochs": 10,
        "patience": 2,
    },
    # The best on IMDB of those tried: the defaults, trained against the worst nearby word vectors too.
    "best": {
        "adversarial": 5.0,
        "max_epochs": 5,
    },
}
