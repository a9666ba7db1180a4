"""Data: corpora by name, a user's tables, word ids, and batches of like length."""

from recurra.data.batching import Batch, LengthBucketSampler, collate, stratified_split
from recurra.data.table import Splits, TextTable, read_table
from recurra.data.vocabulary import encode, train_word_tokenizer

__all__ = [
    "Batch",
    "LengthBucketSampler",
    "Splits",
    "TextTable",
    "collate",
    "encode",
    "read_table",
    "stratified_split",
    "train_word_tokenizer",
]
