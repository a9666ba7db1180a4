"""Settings of tasks by name. Imports nothing, so that a command's help can list them."""

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
    # The best on IMDB of those tried: the defaults, and training against the worst nearby word vectors.
    "best": {
        "adversarial": 5.0,
        "max_epochs": 5,
    },
}

LANGUAGE_PRESETS: dict[str, dict[str, Any]] = {
    # LanguageModel's own defaults.
    "default": {},
    # The network that Zaremba et al. (2014) call small, and their chunks, trained by Adam.
    "ptb-small": {
        "hidden_size": 200,
        "num_layers": 2,
        "embedding_size": 200,
        "chunk": 20,
        "batch_size": 20,
    },
    # No more weights, which tying leaves for wider layers, and the parts of AWD-LSTM (Merity et al., 2018).
    "ptb-awd": {
        "hidden_size": [450, 256],
        "num_layers": None,
        "embedding_size": 256,
        "tied": True,
        "dropout": 0.2,
        "input_dropout": 0.2,
        "output_dropout": 0.3,
        "embedding_dropout": 0.05,
        "weight_dropout": 0.2,
        "activation_penalty": 1.0,
        "temporal_penalty": 0.5,
        "chunk": 35,
        "batch_size": 20,
    },
    "tinyshakespeare": {
        "unit": "char",
        "hidden_size": 384,
        "num_layers": 2,
        "embedding_size": 64,
        "dropout": 0.3,
        "output_dropout": 0.3,
        "chunk": 64,
        "batch_size": 64,
        "max_epochs": 20,
    },
}
