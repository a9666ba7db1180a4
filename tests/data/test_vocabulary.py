"""The tokenizer: which words it knows, and what becomes of a text."""

from collections import Counter

import numpy as np
import pytest
from tokenizers import Tokenizer

from recurra.data import encode, train_word_tokenizer
from recurra.errors import EmptyDataError, OptionError

TEXTS = ["The cat sat. The cat ran!", "a dog, a cat & the fox", "zebra yak xenon", "yak"]


def words(tokenizer: Tokenizer) -> list[str]:
    return sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)


def counted(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    """All words, by falling frequency and then the alphabet: counted here, independently of the trainer."""
    count: Counter[str] = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        count.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    return sorted(count, key=lambda word: (-count[word], word))


@pytest.mark.parametrize("vocab_size", [3, 7, 11, 500])
def test_ids_go_by_frequency_and_then_the_alphabet(vocab_size: int) -> None:
    tokenizer = train_word_tokenizer(TEXTS, vocab_size)
    assert words(tokenizer) == ["[PAD]", "[UNK]", *counted(tokenizer, TEXTS)][:vocab_size]


def test_the_order_of_the_texts_is_no_matter() -> None:
    assert train_word_tokenizer(TEXTS, 9).to_str() == train_word_tokenizer(TEXTS[::-1], 9).to_str()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Fine<br />film<br/>", ["fine", "film"]),
        ("don't STOP!!", ["don", "'", "t", "stop", "!!"]),
        ("\ufb01ne \uff21\uff22", ["fine", "ab"]),  # a ligature and wide letters: NFKC
        ("ÉTÉ été", ["été", "été"]),
        ("[PAD] and [UNK]", ["[", "pad", "]", "and", "[", "unk", "]"]),
    ],
)
def test_how_a_text_is_cut(text: str, tokens: list[str]) -> None:
    tokenizer = train_word_tokenizer([text], 100)
    assert tokenizer.encode(text).tokens == tokens


def test_a_text_cannot_make_padding() -> None:
    tokenizer = train_word_tokenizer(TEXTS, 100)
    again = Tokenizer.from_str(tokenizer.to_str())
    for one in (tokenizer, again):
        assert 0 not in encode(one, ["[PAD] [PAD] the [UNK]"], 10)[0]


def test_the_last_tokens_are_kept_and_none_is_empty() -> None:
    tokenizer = train_word_tokenizer(["one two three four"], 100)
    whole, *rest = encode(tokenizer, ["one two three four", "", " \n", "unheard"], 100)
    assert [ids.tolist() for ids in rest] == [[1], [1], [1]]
    assert whole.dtype == np.int32
    assert encode(tokenizer, ["one two three four"], 2)[0].tolist() == whole[-2:].tolist()


def test_many_texts_stay_in_order() -> None:
    tokenizer = train_word_tokenizer(["w0 w1 w2"], 100)
    texts = [f"w{i % 3}" for i in range(2500)]  # more than are encoded at once
    ids = {word: tokenizer.token_to_id(word) for word in ("w0", "w1", "w2")}
    assert [row.tolist() for row in encode(tokenizer, texts, 5)] == [[ids[text]] for text in texts]
    assert encode(tokenizer, [], 5) == []


def test_what_cannot_be_learnt_from() -> None:
    with pytest.raises(EmptyDataError, match="hold no words"):
        train_word_tokenizer([" ", ""], 100)
    with pytest.raises(EmptyDataError, match="hold no words"):
        train_word_tokenizer([], 100)
    with pytest.raises(OptionError, match="vocab_size must be at least 3"):
        train_word_tokenizer(TEXTS, 2)
    with pytest.raises(OptionError, match="max_tokens must be positive"):
        encode(train_word_tokenizer(TEXTS, 9), TEXTS, 0)
