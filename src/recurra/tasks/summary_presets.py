"""Settings of summaries and translations by name. Imports nothing, so that a command's help can list them."""

from typing import Any

SUMMARY_PRESETS: dict[str, dict[str, Any]] = {
    # Summarizer's own defaults.
    "default": {},
    # Small enough to learn from the standard library's documentation within three minutes on two cores.
    "demo": {
        "cell": "gru",
        "hidden_size": 96,
        "embedding_size": 96,
        "vocab_size": 6_000,
        "max_source_tokens": 80,
        "max_target_tokens": 24,
        "learning_rate": 4e-3,
        "max_epochs": 12,
        "patience": None,
    },
    # What follows the first paragraph -> the first paragraph.
    "docstrings": {
        "max_source_tokens": 150,
        "max_target_tokens": 30,
        "learning_rate": 3e-3,
        "max_epochs": 10,
        "patience": 3,
    },
    # E-mail -> subject line: short ones, much copied.
    "aeslc": {
        "vocab_size": 15_000,
        "min_count": 3,
        "lowercase": True,
        "max_source_tokens": 150,
        "max_target_tokens": 15,
        "dropout": 0.4,
        "embedding_dropout": 0.3,
        "word_dropout": 0.1,
        "max_epochs": 8,
        "length_penalty": 1.0,
    },
    # A line of Python -> English.
    "django": {
        "vocab_size": 8_000,
        "min_count": 3,
        "max_source_tokens": 80,
        "max_target_tokens": 60,
        "dropout": 0.3,
        "learning_rate": 3e-3,
        "max_epochs": 12,
        "no_repeat": 0,
        "length_penalty": 1.0,
    },
    # Short sentences, English -> French: nothing to copy but names.
    "tatoeba": {
        "hidden_size": 192,
        "embedding_size": 192,
        "vocab_size": 12_000,
        "max_source_tokens": 40,
        "max_target_tokens": 40,
        "dropout": 0.3,
        "word_dropout": 0.0,
        "batch_size": 64,
        "max_epochs": 2,
        "no_repeat": 0,
        "length_penalty": 1.0,
    },
}
