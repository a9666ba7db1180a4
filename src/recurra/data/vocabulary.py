"""Texts to word ids, by the `tokenizers` library."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import NFKC, Lowercase, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.trainers import WordLevelTrainer

from recurra.errors import EmptyDataError, OptionError

PAD, UNK = "[PAD]", "[UNK]"
PAD_ID, UNK_ID = 0, 1
AT_ONCE = 1024  # an Encoding takes some hundred bytes a word, so few of them are alive at a time

Ids = np.ndarray[Any, np.dtype[np.int32]]


def train_word_tokenizer(texts: Iterable[str], vocab_size: int, *, progress: bool = False) -> Tokenizer:
    """A tokenizer that knows the most frequent words of `texts`.

    Texts are brought to NFKC and lower case, and the line breaks of HTML become spaces; a token is a run of letters,
    digits and underscores, or a run of other signs. Equally frequent words are taken in the order of the alphabet,
    so the same texts in any order give the same ids.

    Args:
        texts: training texts only, or the held-out ones are no longer unseen.
        vocab_size: V, at most so many ids, of which 0 is ``[PAD]`` and 1 is ``[UNK]``, the unknown word.
        progress: show a bar.

    Raises:
        OptionError: `vocab_size` leaves no room for a word.
        EmptyDataError: there is no word in the texts.

    Example:
        >>> tokenizer = train_word_tokenizer(["A fine film.<br />Fine acting!", "fine, a film"], vocab_size=5)
        >>> sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        [('[PAD]', 0), ('[UNK]', 1), ('fine', 2), ('a', 3), ('film', 4)]
    """
    if vocab_size < 3:
        raise OptionError(
            "vocab_size must be at least 3", received=str(vocab_size), instead=f"room for {PAD}, {UNK} and a word"
        )
    learner = word_tokenizer({UNK: UNK_ID})
    learner.train_from_iterator(
        texts, WordLevelTrainer(vocab_size=vocab_size, special_tokens=[PAD, UNK], show_progress=progress)
    )
    vocabulary = learner.get_vocab(with_added_tokens=False)
    if len(vocabulary) == 2:
        raise EmptyDataError("the texts hold no words to make a vocabulary of", instead="at least one text with a word")
    # A trained tokenizer takes "[PAD]" in a text for padding; this one has it in the vocabulary only, and lower case
    # keeps texts from it.
    return word_tokenizer(vocabulary)


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[Ids]:
    """The ids of the last `max_tokens` words of each text, int32; of a text without words, one unknown word.

    Raises:
        OptionError: `max_tokens` is not positive.

    Example:
        >>> tokenizer = train_word_tokenizer(["a fine film"], vocab_size=10)
        >>> [ids.tolist() for ids in encode(tokenizer, ["A very fine film", " "], max_tokens=3)]
        [[1, 4, 3], [1]]
    """
    return list(encoded(tokenizer, texts, max_tokens))


def encoded(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> Iterator[Ids]:
    """What :func:`encode` gives, one by one."""
    if max_tokens < 1:
        raise OptionError("max_tokens must be positive", received=str(max_tokens))
    for start in range(0, len(texts), AT_ONCE):
        for encoding in tokenizer.encode_batch_fast(texts[start : start + AT_ONCE]):
            yield np.array(encoding.ids[-max_tokens:] or [UNK_ID], dtype=np.int32)


def word_tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    """The tokenizer of a vocabulary that :func:`train_word_tokenizer` learnt: word -> id, with ``[UNK]`` among them."""
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNK))
    tokenizer.normalizer = Normalizers([Replace(Regex(r"<br\s*/?>"), " "), NFKC(), Lowercase()])
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer
