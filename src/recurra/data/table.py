"""Texts and labels out of a user's table: every row is read, or an error says which one cannot be."""

import hashlib
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recurra.data.records import Record, read_records, require_characters
from recurra.data.stored import Texts, utf8_of
from recurra.errors import (
    DataError,
    EmptyDataError,
    EmptyTextError,
    MissingColumnError,
    did_you_mean,
)

TEXT_COLUMNS = ("text", "review", "body", "sentence")
LABEL_COLUMNS = ("label", "class", "category", "sentiment")


@dataclass(frozen=True)
class TextTable:
    """One text a row.

    Attributes:
        texts: none of them empty; of a file :class:`~recurra.data.Texts`, which memory does not hold.
        labels: as many, or None. source: a path or a corpus's name, for messages.
    """

    texts: Sequence[str]
    labels: list[str] | None
    source: str


@dataclass(frozen=True)
class Splits:
    """The parts of a data set.

    Attributes:
        fingerprint: the SHA-256 sum of all texts and labels, as hexadecimal digits: what a run was trained on.
    """

    train: TextTable
    valid: TextTable | None
    test: TextTable | None
    fingerprint: str


def splits_of(train: TextTable, valid: TextTable | None = None, test: TextTable | None = None) -> Splits:
    """Splits with their fingerprint."""
    total = hashlib.sha256()
    for table in (train, valid, test):
        columns: list[Sequence[str]] = [table.texts, table.labels or []] if table else [[], []]
        for column in columns:
            for data in utf8_of(column):
                total.update(b"%d:" % len(data))
                total.update(data)
            total.update(b";")
    return Splits(train, valid, test, total.hexdigest())


def read_table(
    path: Path | str, *, text: str | None = None, label: str | None = None, need_label: bool = True
) -> TextTable:
    """Texts and labels from the columns of a file.

    Args:
        path: a ``.csv``, ``.tsv`` or ``.jsonl`` in UTF-8, also as ``.gz`` or ``.xz``, or a ``.parquet``. CSV and TSV
            begin with a line of names; a field of a CSV may be quoted, in a TSV a quote is a character as any other.
        text: the column of the texts; None: the first there is of text, review, body, sentence.
        label: the column of the classes; None: the first there is of label, class, category, sentiment.
        need_label: False: labels are read only if `label` names their column.

    Raises:
        MissingDataError: there is no such file.
        UndecodableFileError: it is not valid UTF-8, or not what its name says; the line is given.
        MissingColumnError: it has no such column. EmptyDataError: it has no rows.
        EmptyTextError: a row has no text. DataError: a row has no label, or the file's kind is not known.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "reviews.csv")
        ...     _ = path.write_text('review,sentiment\\n"fine, really",good\\ndull,bad\\n')
        ...     table = read_table(path)
        >>> [*table.texts], table.labels
        (['fine, really', 'dull'], ['good', 'bad'])
    """
    path = Path(path)
    columns, records = read_records(path)
    text = column_named(path, columns, text, TEXT_COLUMNS, "text")
    wanted = [text]
    if need_label or label is not None:
        label = column_named(path, columns, label, LABEL_COLUMNS, "label")
        wanted.append(label)
    labels: list[str] = []

    def found() -> Iterator[str]:
        for record in records(wanted):
            yield text_in(record, text)
            if label is not None:
                labels.append(sys.intern(_label(record, label)))

    texts = Texts(found())
    if not texts:
        raise EmptyDataError(f"{path} has no rows", received=f"only the columns {', '.join(columns)}")
    return TextTable(texts, labels if label is not None else None, str(path))


def column_named(path: Path, columns: list[str], name: str | None, usual: tuple[str, ...], role: str) -> str:
    """The column of `name`, or without it the first there is of the `usual` names of its `role`.

    Raises:
        MissingColumnError: there is none.
    """
    if name is not None:
        if name not in columns:
            raise MissingColumnError(
                f"{path} has no column of that name", received=repr(name), instead=did_you_mean(name, columns)
            )
        return name
    folded = {column.strip().casefold(): column for column in reversed(columns)}
    for one in usual:
        if one in folded:
            return folded[one]
    raise MissingColumnError(
        f"{path} has no column named {', '.join(usual[:-1])} or {usual[-1]}, so name the one of the {role}s",
        received=f"the columns {', '.join(columns)}",
        instead=f'{role}="{columns[0]}", or --{role} {shlex.quote(columns[0])}, with the name of yours',
    )


def text_in(record: Record, column: str) -> str:
    """The text of a row.

    Raises:
        EmptyTextError: there is none. DataError: it is no text. UndecodableFileError: it holds half a character.
        MissingColumnError: the row has no such column.
    """
    value = _value(record, column)
    if _is_missing(value) or (isinstance(value, str) and not value.strip()):
        raise EmptyTextError(
            f"{record.where}: there is no text in {column!r}", received=repr(value), instead="leave such rows out"
        )
    if not isinstance(value, str):
        raise DataError(f"{record.where}: {column!r} is no text", received=repr(value)[:80], instead="a string")
    require_characters(value, f"{record.where}: {column!r}")
    return value


def _label(record: Record, column: str) -> str:
    value = _value(record, column)
    if _is_missing(value) or (isinstance(value, str) and not value.strip()):
        raise DataError(
            f"{record.where}: there is no label in {column!r}",
            received=repr(value),
            instead="a label, or leave such rows out",
        )
    if not isinstance(value, str | int | float):
        raise DataError(
            f"{record.where}: {column!r} is no label", received=repr(value)[:80], instead="a string or a number"
        )
    require_characters(str(value), f"{record.where}: {column!r}")
    return str(value).strip()


def _value(record: Record, column: str) -> Any:
    if column not in record.values:
        raise MissingColumnError(
            f"{record.where}: this row has no {column!r}", received=f"{', '.join(record.values) or 'no columns'}"
        )
    return record.values[column]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
