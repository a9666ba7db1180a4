"""Data: corpora by name, a user's tables, word ids, and batches of like length."""

from recurra.data.batching import Batch, LengthBucketSampler, collate, stratified_split
from recurra.data.corpora import CORPORA, Corpus, load_corpus, load_splits
from recurra.data.docstrings import docstrings, read_docstrings
from recurra.data.pairs import PAIRS, PairSplits, PairTable, docstring_pairs, load_pairs, read_pairs
from recurra.data.public import imdb
from recurra.data.public_texts import ptb, tinyshakespeare
from recurra.data.stored import Stored, Text, Texts
from recurra.data.table import Splits, TextTable, read_table
from recurra.data.texts import load_text
from recurra.data.units import UNITS, Units, units_of
from recurra.data.vocabulary import PAD, PAD_ID, UNK, UNK_ID, encode, train_word_tokenizer, word_tokenizer
from recurra.data.word_vectors import cooccurrence_vectors
from recurra.data.written_words import WrittenWords, join_words, learn_words, split_words

__all__ = [
    "CORPORA",
    "PAD",
    "PAD_ID",
    "PAIRS",
    "UNITS",
    "UNK",
    "UNK_ID",
    "Batch",
    "Corpus",
    "LengthBucketSampler",
    "PairSplits",
    "PairTable",
    "Splits",
    "Stored",
    "Text",
    "TextTable",
    "Texts",
    "Units",
    "WrittenWords",
    "collate",
    "cooccurrence_vectors",
    "docstring_pairs",
    "docstrings",
    "encode",
    "imdb",
    "join_words",
    "learn_words",
    "load_corpus",
    "load_pairs",
    "load_splits",
    "load_text",
    "ptb",
    "read_docstrings",
    "read_pairs",
    "read_table",
    "split_words",
    "stratified_split",
    "tinyshakespeare",
    "train_word_tokenizer",
    "units_of",
    "word_tokenizer",
]
