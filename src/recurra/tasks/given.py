"""Texts and labels as a caller gives them, checked."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recurra.data.records import read_pieces, require_characters
from recurra.data.stored import Text, Texts, utf8_of
from recurra.errors import DataError, EmptyDataError, EmptyTextError, MissingDataError, SingleClassError

Labels = np.ndarray[Any, np.dtype[Any]]  # (N,)
Targets = np.ndarray[Any, np.dtype[np.int64]]  # (N,) indices among the classes


def checked_texts(texts: Iterable[Any], name: str = "texts") -> Sequence[str]:
    """A list of texts, or the :class:`~recurra.data.Texts` that were given, none of them empty.

    Raises:
        DataError: one string was given instead of a list, or something that is no string is among them.
        EmptyDataError: there are none. EmptyTextError: one is empty, white space, or a missing value.
        UndecodableFileError: one holds half a character.
    """
    if isinstance(texts, str | bytes):
        raise DataError(
            f"{name} must be a sequence of texts",
            received=f"one {type(texts).__name__}",
            instead="[text], a list of one",
        )
    found = texts if isinstance(texts, Texts) else list(texts)
    if not found:
        raise EmptyDataError(f"{name} is empty: there is nothing to learn from or to classify")
    for i, text in enumerate(found):
        if text is None or (isinstance(text, float) and np.isnan(text)):
            raise EmptyTextError(f"{name}[{i}] is a missing value", received=repr(text), instead="leave such rows out")
        if not isinstance(text, str):
            raise DataError(f"{name}[{i}] is no text", received=type(text).__name__, instead="a str")
        if not text.strip():
            raise EmptyTextError(f"{name}[{i}] has no text", received=repr(text[:20]), instead="leave such rows out")
        require_characters(text, f"{name}[{i}]")
    return found


def checked_labels(labels: Iterable[Any], rows: int, name: str = "labels") -> Labels:
    """The labels as an array of strings, integers or booleans.

    Raises:
        DataError: another number of them than texts, a missing one, types that do not mix, or one that an array of
            NumPy would change.
    """
    found = [v.item() if isinstance(v, np.generic) else v for v in labels]
    if len(found) != rows:
        raise DataError(f"{name} must be as many as the texts", received=f"{len(found)} labels, {rows} texts")
    for i, value in enumerate(found):
        if value is None or (isinstance(value, float) and np.isnan(value)):
            raise DataError(f"{name}[{i}] is a missing value", received=repr(value), instead="leave such rows out")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise DataError(
                f"{name}[{i}] is no integer of 64 bits", received=f"{value.bit_length()} bits", instead="str(label)"
            )
        if isinstance(value, str):
            require_characters(value, f"{name}[{i}]")
            if value.endswith("\0"):
                raise DataError(f"{name}[{i}] ends in a zero character", received=repr(value)[-80:], instead="without")
    kinds = {type(v) for v in found}
    if len(kinds) > 1 or not kinds <= {str, int, bool}:
        raise DataError(
            f"{name} must be all strings, all integers or all booleans",
            received=", ".join(sorted(k.__name__ for k in kinds)),
        )
    return np.array(found)


def classes_of(labels: Labels) -> tuple[Labels, Targets]:
    """The classes in order, and each label's index among them.

    Raises:
        SingleClassError: there is only one.
    """
    classes, targets = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise SingleClassError(
            "a classifier needs texts of at least two classes",
            received=f"only {classes[0]!s}, {len(labels)} times",
            instead="data of several classes, or another label column",
        )
    return classes, targets.astype(np.int64)


def targets_among(labels: Labels, classes: Labels, name: str = "labels") -> Targets:
    """Each label's index among `classes`, which are in order.

    Raises:
        DataError: a label is none of them.
    """
    index = {value: i for i, value in enumerate(classes.tolist())}
    values = labels.tolist()
    unknown = sorted({str(v) for v in values if v not in index})
    if unknown:
        raise DataError(
            f"{name} holds classes that the training data does not",
            received=", ".join(unknown[:5]),
            instead=f"labels among {', '.join(str(c) for c in classes[:20])}",
        )
    return np.array([index[v] for v in values], dtype=np.int64)


def joined(text: str | Path | Iterable[str] | Text, name: str = "text") -> Text:
    """One text of one, or of several, each of which ends its line; none is held in memory that was not before.

    Raises:
        EmptyDataError, EmptyTextError, MissingDataError, DataError: there is none, or one is none.

    Example:
        >>> str(joined("no line end")), str(joined(["a", "b\\n"]))
        ('no line end', 'a\\nb\\n')
    """
    if isinstance(text, Path):
        if not text.exists() or text.is_dir():
            raise MissingDataError(
                f"there is no such file for the {name}", received=str(text), instead="a text file, or the text itself"
            )
        return Text.of(read_pieces(text))
    if isinstance(text, str):
        require_characters(text, f"the {name}")
        text = Text.of([text])
    elif isinstance(text, Texts) and len(text) == 1:
        text = text.text(0)
        for piece in text.pieces():
            require_characters(piece, f"the {name}")
    elif not isinstance(text, Text):
        return Text.of(_ending_lines(text, name))
    if text.is_blank():
        raise EmptyTextError(
            f"the {name} is empty", received=repr(str(text.part(0, text.offset(20)))), instead="a text"
        )
    return text


def _ending_lines(texts: Iterable[str], name: str) -> Iterator[str]:
    found = checked_texts(texts, name)
    for one in found:
        yield one if len(found) == 1 or one.endswith("\n") else one + "\n"


def held_out(text: Text, fraction: float) -> tuple[Text, Text]:
    """A text without its last part, and that part, which begins with the next line where that is more than half of it.

    Raises:
        DataError: nothing would be left of either.

    Example:
        >>> [str(part) for part in held_out(joined("one\\ntwo\\nthree\\n"), 0.5)]
        ['one\\ntwo\\n', 'three\\n']
    """
    cut = round(text.characters * (1 - fraction))
    line = text.line_end(text.offset(max(0, cut - 1)))
    exact, end = text.offset(cut), len(text.utf8)
    at = line if 2 * (end - line) > end - exact and line else exact
    kept, out = text.part(0, at), text.part(at)
    if kept.is_blank() or out.is_blank():
        raise DataError(
            "the text is too short to hold a part of it out",
            received=f"{text.characters} characters, validation_fraction={fraction:g}",
            instead="a longer text, or validation_fraction=0",
        )
    return kept, out


def fingerprint(*columns: Sequence[Any] | None) -> str:
    """The SHA-256 sum of texts and labels, whatever their number, as hexadecimal digits.

    Example:
        >>> fingerprint(["ab", "c"]) == fingerprint(["a", "bc"])
        False
    """
    total = hashlib.sha256()
    for column in columns:
        values = [] if column is None else column
        total.update(b"%d;" % len(values))
        for data in utf8_of(values):
            total.update(b"%d:" % len(data))
            total.update(data)
    return total.hexdigest()
