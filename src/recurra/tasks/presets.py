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
    # The network that Zaremba et al. (2014) call small, with their chunks, batches and gradient descent: their rate of
    # 1 and their clipping at 5 are of losses summed over the 20 frames of a chunk. Some dropout, and fewer epochs.
    "ptb-small": {
        "hidden_size": 200,
        "num_layers": 2,
        "embedding_size": 200,
        "dropout": 0.2,
        "input_dropout": 0.1,
        "output_dropout": 0.2,
        "chunk": 20,
        "batch_size": 20,
        "optimizer": "sgd",
        "learning_rate": 20.0,
        "clip": 0.25,
        "schedule": "linear",
        "max_epochs": 8,
    },
    # Fewer weights, for tying saves two million, and the parts of AWD-LSTM (Merity et al., 2018), milder than there:
    # it reads the text seven times, not five hundred.
    "ptb-awd": {
        "hidden_size": [300, 250],
        "num_layers": None,
        "embedding_size": 250,
        "tied": True,
        "dropout": 0.2,
        "input_dropout": 0.1,
        "output_dropout": 0.25,
        "embedding_dropout": 0.02,
        "weight_dropout": 0.2,
        "activation_penalty": 0.5,
        "temporal_penalty": 0.25,
        "chunk": 20,
        "batch_size": 20,
        "optimizer": "sgd",
        "learning_rate": 20.0,
        "clip": 0.25,
        "schedule": "linear",
        "max_epochs": 7,
    },
    # The text is short, and its last tenth is of plays that the rest does not know: recurrent weights are dropped above
    # all, and nothing is held out.
    "tinyshakespeare": {
        "unit": "char",
        "cell": "gru",
        "hidden_size": 256,
        "num_layers": 2,
        "embedding_size": 64,
        "dropout": 0.25,
        "output_dropout": 0.25,
        "weight_dropout": 0.2,
        "weight_decay": 0.03,
        "validation_fraction": 0.0,
        "chunk": 256,
        "batch_size": 32,
        "learning_rate": 5e-3,
        "max_epochs": 20,
    },
    # Three times the weights and the time, and more dropped (without that, and with a fiftieth held out: 1.531 nats
    # after 14 epochs).
    "tinyshakespeare-large": {
        "unit": "char",
        "hidden_size": 384,
        "num_layers": 2,
        "embedding_size": 64,
        "dropout": 0.4,
        "output_dropout": 0.4,
        "weight_dropout": 0.2,
        "weight_decay": 0.03,
        "validation_fraction": 0.0,
        "chunk": 64,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "max_epochs": 18,
    },
}
