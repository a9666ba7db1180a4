"""Words, characters and subwords: ids and back, and vocabularies that a stranger may have written."""

import json

import pytest

from recurra.data.units import UNITS, Characters, Subwords, Words, units_of
from recurra.errors import DataError, EmptyDataError, OptionError

TEXT = "the cat sat on the mat\nthe naïve cat 日本 saw a 🐈\n\nthe end\n" * 3
SIZES = {"word": 100, "char": 100, "subword": 300}
ANY = pytest.mark.parametrize("name", UNITS)


def written(units, ids, before=""):
    return "".join(map(units.writer(before), ids.tolist()))


@ANY
def test_a_text_and_back(name):
    units = UNITS[name].learn([TEXT], SIZES[name])
    ids = units.encode(TEXT)
    assert written(units, ids) == TEXT
    assert 0 <= ids.min() <= ids.max() < len(units)
    assert units.tokens[units.begin] in ("\n", "<eos>", "Ċ")


@ANY
def test_a_text_is_the_sum_of_its_lines(name):
    units = UNITS[name].learn([TEXT], SIZES[name])
    lines = TEXT.splitlines(keepends=True)
    assert [i for line in lines for i in units.encode(line).tolist()] == units.encode(TEXT).tolist()


@ANY
def test_the_document_gives_the_same_units(name):
    units = UNITS[name].learn([TEXT], SIZES[name])
    again = units_of(json.loads(units.to_str()))
    assert type(again) is type(units)
    assert again.tokens == units.tokens
    assert again.encode(TEXT + "zebra\n").tolist() == units.encode(TEXT + "zebra\n").tolist()


def test_the_most_frequent_come_first_and_the_rest_is_unknown():
    words = Words.learn(["b a a c\n", "a b d\n"], 5)
    assert words.tokens == ["<eos>", "<unk>", "a", "b", "c"]
    assert words.encode("a d\nc").tolist() == [2, 1, 0, 4]
    assert Characters.learn(["abacus"], 4).tokens == ["\n", "<unk>", "a", "b"]
    assert Subwords.learn(["x"], 300).encode("né\n").tolist() != []


def test_words_are_written_behind_what_stands_before():
    words = Words.learn(["a b\n"], 9)
    ids = words.encode("a b\na")
    assert written(words, ids, "so") == " a b\na"
    assert written(words, ids, "so ") == written(words, ids) == "a b\na"


def test_the_treebanks_own_unknown_word_is_the_unknown_word():
    words = Words.learn([" a <unk> b \n c <unk> \n"], 10)
    assert words.tokens == ["<eos>", "<unk>", "a", "b", "c"]


def test_subwords_wait_for_whole_characters():
    subwords = Subwords.learn(["plain\n"], 258)
    write = subwords.writer()
    pieces = [write(i) for i in subwords.encode("🐈!\n").tolist()]
    assert pieces == ["", "", "", "🐈", "!", "\n"]


@pytest.mark.parametrize(("name", "size"), [("word", 2), ("char", 1), ("subword", 256)])
def test_a_vocabulary_needs_room(name, size):
    with pytest.raises(OptionError, match="vocab_size must be at least"):
        UNITS[name].learn([TEXT], size)


def test_a_text_of_line_ends_alone_makes_no_vocabulary():
    with pytest.raises(EmptyDataError, match="nothing to make a vocabulary of"):
        Words.learn(["\n\n"], 10)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "no known unit"),
        ({"unit": ["word"], "tokens": []}, "no known unit"),
        ({"unit": "word", "tokens": "abc"}, "different tokens"),
        ({"unit": "word", "tokens": ["<eos>", "<unk>", "a", "a"]}, "different tokens"),
        ({"unit": "word", "tokens": ["<eos>", "<unk>", 3]}, "different tokens"),
        ({"unit": "word", "tokens": ["<eos>", "<unk>", "\ud800"]}, "different tokens"),
        ({"unit": "word", "tokens": ["<eos>", "<unk>"], "pattern": "(a+)+"}, "different tokens"),
        ({"unit": "word", "tokens": ["a"]}, "lacks what it needs(.|\n)*'<eos>', '<unk>'"),
        ({"unit": "char", "tokens": ["a", "<unk>"]}, "lacks what it needs"),
        ({"unit": "subword", "tokens": ["Ċ", "a"], "merges": [["a", "b"]]}, "merged from its own tokens"),
        ({"unit": "subword", "tokens": ["Ċ", "a"], "merges": [["a"]]}, "merged from its own tokens"),
        ({"unit": "subword", "tokens": ["Ċ", "a"], "merges": "aa"}, "merged from its own tokens"),
    ],
)
def test_documents_of_strangers(document, said):
    with pytest.raises(DataError, match=said):
        units_of(document)
