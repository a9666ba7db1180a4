"""Data: corpora by name, a user's tables, word ids, and batches of like length."""

from recurra.data.batching import Batch, LengthBucketSampler, collate, stratified_split
from recurra.data.corpora import CORPORA, Corpus, load_corpus, load_splits
from recurra.data.docstrings import docstrings, read_docstrings
from recurra.data.public import imdb
from recurra.data.public_texts import ptb, tinyshakespeare
from recurra.data.table import Splits, TextTable, read_table
from recurra.data.texts import load_text
from recurra.data.units import UNITS, Units, units_of
from recurra.data.vocabulary import PAD, PAD_ID, UNK, UNK_ID, encode, train_word_tokenizer, word_tokenizer
from recurra.data.word_vectors import cooccurrence_vectors

__all__ = [
    "CORPORA",
    "PAD",
    "PAD_ID",
    "UNITS",
    "UNK",
    "UNK_ID",
    "Batch",
    "Corpus",
    "LengthBucketSampler",
    "Splits",
    "TextTable",
    "Units",
    "collate",
    "cooccurrence_vectors",
    "docstrings",
    "encode",
    "imdb",
    "load_corpus",
    "load_splits",
    "load_text",
    "ptb",
    "read_docstrings",
    "read_table",
    "stratified_split",
    "tinyshakespeare",
    "train_word_tokenizer",
    "units_of",
    "word_tokenizer",
]
