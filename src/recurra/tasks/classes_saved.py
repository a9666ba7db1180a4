"""What a classifier's run folder holds beside settings and weights: its words and its classes."""

import reprlib
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from recurra.data import PAD, PAD_ID, UNK, UNK_ID, word_tokenizer
from recurra.errors import RunFolderError
from recurra.train.run_folder import RunFolder
from recurra.train.untrusted import AGAIN, field, parse_json, read_json

LARGEST_CLASSES = 2**26  # characters: of the array of labels, in which each takes as much room as the longest


def read_words(folder: RunFolder) -> Tokenizer:
    """Read ``tokenizer.json``.

    Raises:
        RunFolderError: it is damaged, or no vocabulary of words numbered from 0, or more than a vocabulary.
    """
    document = read_json(folder.tokenizer)
    words = field(field(document, "model", dict, folder.tokenizer), "vocab", dict, folder.tokenizer)
    if (
        {type(number) for number in words.values()} != {int}
        or sorted(words.values()) != [*range(len(words))]
        or (words.get(PAD), words.get(UNK)) != (PAD_ID, UNK_ID)
    ):
        raise RunFolderError(f"{folder.tokenizer} is damaged: no vocabulary of words numbered from 0", instead=AGAIN)
    try:
        tokenizer = word_tokenizer(words)
    except TypeError as error:  # JSON can write half of a character, which is no text
        said = str(error)[:200]
        raise RunFolderError(f"{folder.tokenizer} is damaged: a word", received=said, instead=AGAIN) from error
    # Only the words are taken from the file: a pattern in it could take forever, and padding in it all memory.
    if parse_json(tokenizer.to_str()) != document:
        raise RunFolderError(
            f"{folder.tokenizer} is not how this version of recurra reads words",
            received=", ".join(f"{k}={reprlib.repr(v)}" for k, v in document.items() if k != "model")[:200],
            instead="the version that wrote it, or train again with --overwrite",
        )
    return tokenizer


def read_classes(config: dict[str, Any], folder: RunFolder) -> np.ndarray[Any, np.dtype[Any]]:
    """The classes in a run's config.

    Raises:
        RunFolderError: they are damaged.
    """
    classes = field(config, "classes", list, folder.config)
    kinds = {type(c) for c in classes}
    if (
        len(classes) < 2
        or len(kinds) != 1
        or not kinds <= {str, int, bool}
        or len(set(classes)) != len(classes)
        or (kinds == {int} and not all(-(2**63) <= c < 2**63 for c in classes))
        or (kinds == {str} and len(classes) * max(map(len, classes)) > LARGEST_CLASSES)
    ):
        raise RunFolderError(
            f"{folder.config} is damaged: 'classes' must be several", received=reprlib.repr(classes), instead=AGAIN
        )
    return np.array(classes)
