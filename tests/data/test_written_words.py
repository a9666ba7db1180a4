"""Words that can be written out again: texts come back, vocabularies are learnt, saved and refused."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.data import WrittenWords, join_words, learn_words, split_words
from recurra.data.written_words import JOINER, SPECIAL
from recurra.errors import DataError, EmptyDataError, OptionError


@given(st.text(st.characters(codec="utf-8", exclude_characters=JOINER)))
def test_a_text_comes_back_but_for_white_space(text):
    assert join_words(split_words(text)).split() == unicodedata.normalize("NFC", text).split()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("It's a `np.pad`!", "It ￭'￭ s a `￭ np ￭.￭ pad ￭` ￭!"),
        ("if x >= 3 : f(x)", "if x > ￭= 3 : f ￭(￭ x ￭)"),
        (">>> -1.5", ">>> -￭ 1 ￭.￭ 5"),
        ("J’ai mangé à 5 €.", "J ￭’￭ ai mangé à 5 € ￭."),
        ("日本語 abc", "日 ￭本 ￭語 abc"),
        ("ดี", "ด ￭ี"),
        ("हिन्दी में", "हिन्दी में"),
        ("می‌خواهم عَرَبِيّ שָׁלוֹם", "می‌خواهم عَرَبِيّ שָׁלוֹם"),
        ("q̄+1", "q̄ ￭+￭ 1"),
        ("_private x_1", "_private x_1"),
        (f"a{JOINER}b", "a b"),
        (" \n\t", ""),
    ],
)
def test_what_is_a_word(text, tokens):
    assert split_words(text) == tokens.split()


def test_both_sides_weigh_the_same_and_ties_are_in_order():
    long = [["filler"] * 90 + ["rare"] * 5] * 2
    short = [["Key"], ["word"]]
    assert learn_words(long, short, 7, min_count=1).words[4:] == ["filler", "Key", "word"]
    assert learn_words(long, short, 9, min_count=2).words[4:] == ["filler", "rare"]
    assert learn_words(long, short, 9, min_count=1, lowercase=True).words[4:] == ["filler", "key", "word", "rare"]
    assert learn_words([["[UNK]", "a", "a"]], [["[END]"]], 9, min_count=1).words[4:] == ["a"]


def test_vocabularies_that_cannot_be():
    with pytest.raises(OptionError, match="vocab_size must be above 4\n.*4\n.*room for a word"):
        learn_words([["a"]], [["a"]], 4)
    with pytest.raises(EmptyDataError, match="no word comes 3 times(.|\n)*min_count=1"):
        learn_words([["a"]], [["a"]], 9, min_count=3)


def test_a_vocabulary_is_saved_and_read():
    words = WrittenWords([*SPECIAL, "é", "日"], lowercase=True)
    again = WrittenWords.of_json(json.loads(words.to_str()))
    assert (again.words, again.lowercase, len(again)) == (words.words, True, 6)
    assert [again.id(w) for w in ("É", "日", "x", "[END]")] == [4, 5, 1, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"lowercase": "yes"},
        {"words": "abc"},
        {"words": [*SPECIAL, 3]},
        {"words": [*SPECIAL, "a", "a"]},
        {"words": [*SPECIAL[1:], "a"]},
        {"words": [*SPECIAL, ""]},
    ],
    ids=str,
)
def test_what_is_no_vocabulary_is_refused(change):
    document = json.loads(WrittenWords([*SPECIAL, "a"]).to_str()) | change
    with pytest.raises(DataError, match="no vocabulary of words"):
        WrittenWords.of_json(document)
    with pytest.raises(DataError, match="no vocabulary of words"):
        WrittenWords.of_json([document])


def test_pieces_of_words():
    texts = ["The lower the lowest, the newer the newest!"] * 5 + ["low new wide widest 日本"] * 5
    words = [split_words(text) for text in texts]
    learnt = learn_words(words, words, 60, unit="subword")
    assert len(learnt) <= 60
    found = learnt.split("the widest lower: towider")
    assert join_words(found) == "the widest lower: towider"
    assert len(found) > len("the widest lower : towider".split())
    assert learnt.split("lowest Ωmega")[-1] == "Ωmega"  # of letters that are not known: whole, and copied
    assert learnt.split("lowest lowest", 1) == learnt.split("lowest")[:1]
    again = WrittenWords.of_json(json.loads(learnt.to_str()))
    assert again.words == learnt.words
    for text in (*texts, "slower, 日本!"):
        assert again.split(text) == learnt.split(text)
        assert join_words(learnt.split(text)) == text
    assert learn_words(words[::-1], words, 60, unit="subword").words == learnt.words
    with pytest.raises(OptionError, match="no room for pieces of words"):
        learn_words(words, words, 20, unit="subword")
    document = json.loads(learnt.to_str())
    for merges in (None, [["a"]], [["zz", "yy"]], [[1, 2]]):
        with pytest.raises(DataError, match="no vocabulary of words"):
            WrittenWords.of_json(document | {"merges": merges})
