"""The rows of a table's file, each with the place it stands at."""

import csv
import functools
import gzip
import io
import itertools
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from recurra.data import stored
from recurra.errors import (
    DataError,
    EmptyDataError,
    MissingDataError,
    MissingDependencyError,
    UndecodableFileError,
)

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


class Record(NamedTuple):
    """One row: where it stands (``"reviews.csv, line 3"``), and its values by column."""

    where: str
    values: dict[str, Any]


Records = Callable[[Sequence[str]], Iterator[Record]]  # the rows, with at least the columns asked for


def read_records(path: Path) -> tuple[list[str], Records]:
    """The names of a file's columns, and a way to its rows.

    Raises:
        MissingDataError, EmptyDataError, UndecodableFileError, DataError: see :func:`recurra.data.read_table`.
    """
    name = Path(path.name)
    packed = name.suffix.lower() in OPENERS
    kind = (Path(name.stem) if packed else name).suffix.lower()
    if kind not in READERS or (kind == ".parquet" and packed):
        raise DataError(
            f"{path}: the name does not say what kind of table it is",
            received=name.suffix or "no ending",
            instead=f"{', '.join(READERS)}; .gz or .xz after the first three",
        )
    if not path.is_file():
        raise MissingDataError("there is no such file", received=str(path))
    return READERS[kind](path)


def read_text(path: Path) -> str:
    """The content of a file in UTF-8, unpacked if its name ends in ``.gz`` or ``.xz``; a byte order mark is left out.

    Raises:
        UndecodableFileError: it is damaged, or not valid UTF-8. EmptyDataError: it is empty.
    """
    return "".join(read_pieces(path))


def read_pieces(path: Path) -> Iterator[str]:
    """What :func:`read_text` gives, a mebibyte at a time; that there is no text is said at the end."""
    blank, size = True, 0
    with opened(path) as file:
        while piece := file.read(stored.PIECE):
            blank = blank and not piece.strip()
            size += len(piece.encode()) if blank else 0
            yield piece
    if blank:
        raise EmptyDataError(f"{path} is empty", received=f"{size} bytes")


@contextmanager
def opened(path: Path, newline: str = "") -> Iterator[TextIO]:
    """A file as :func:`read_text` reads it, to be read through once, its line ends as they are.

    Raises:
        UndecodableFileError: also where it is read, within the block: it is damaged, or not valid UTF-8.
    """
    unpacked = functools.partial(OPENERS.get(path.suffix.lower(), Path.open), path, "rb")
    try:
        with unpacked() as raw, io.TextIOWrapper(raw, "utf-8-sig", newline=newline) as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UndecodableFileError(
            f"{path} is damaged or cut off", received=str(error), instead="a whole copy of it"
        ) from error
    except UnicodeDecodeError:
        with unpacked() as raw:  # once more, to find the line
            for number, line in enumerate(raw, 1):
                decoded(line, f"{path}, line {number}")
        raise


def decoded(line: bytes, where: str) -> str:
    """A line as text.

    Raises:
        UndecodableFileError: it is not valid UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UndecodableFileError(
            f"{where}: not valid UTF-8",
            received=f"byte {line[error.start]:#04x} at column {error.start + 1}",
            instead="a file in UTF-8: iconv -f latin1 -t utf8, if it is in Latin 1",
        ) from error


def _require_text(path: Path) -> None:
    next(piece for piece in read_pieces(path) if piece.strip())


def _delimited(path: Path, **form: Any) -> tuple[list[str], Records]:
    _require_text(path)
    line, header = next(_rows(path, form))
    columns = [name.strip() for name in header]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"{path}, line {line}: columns of the same name", received=", ".join(map(repr, twice)))

    def records(_: Sequence[str]) -> Iterator[Record]:
        for line, row in itertools.islice(_rows(path, form), 1, None):
            if not row and len(columns) > 1:
                continue  # an empty line
            values = row or [""]
            if len(values) != len(columns):
                raise UndecodableFileError(
                    f"{path}, line {line}: another number of fields than the first line",
                    received=f"{len(values)} fields",
                    instead=f"{len(columns)}: {', '.join(columns)}; a field with a separator in it in quotes (CSV)",
                )
            yield Record(f"{path}, line {line}", dict(zip(columns, values, strict=True)))

    return columns, records


def _rows(path: Path, form: dict[str, Any]) -> Iterator[tuple[int, list[str]]]:
    with opened(path) as file:
        reader = csv.reader(file, strict=True, **form)
        line = 1
        try:
            while (row := _next(reader)) is not None:
                yield line, row
                line = reader.line_num + 1
        except csv.Error as error:
            raise UndecodableFileError(
                f"{path}, line {line}: not valid CSV", received=str(error), instead='a quote within quotes doubled: ""'
            ) from error


def _next(reader: Iterator[list[str]]) -> list[str] | None:
    # csv refuses fields of more than 128 KiB by default, and the limit is the process's.
    before = csv.field_size_limit(2**31 - 1)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _json_lines(path: Path) -> tuple[list[str], Records]:
    _require_text(path)
    columns = dict.fromkeys(name for record in _objects(path) for name in record.values)
    return [*columns], lambda _: _objects(path)


def _objects(path: Path) -> Iterator[Record]:
    # "\n" alone: other signs that end lines are allowed within a string.
    with opened(path, newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise UndecodableFileError(
                    f"{where}: not valid JSON",
                    received=f"{error.msg} at column {error.colno}",
                    instead="one JSON object a line",
                ) from error
            if not isinstance(values, dict):
                raise UndecodableFileError(
                    f"{where}: no JSON object", received=line[:60].rstrip(), instead='{"text": …, "label": …}'
                )
            yield Record(where, values)


def _parquet(path: Path) -> tuple[list[str], Records]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            "reading Parquet needs pyarrow, which is not installed", instead='pip install "recurra[tasks]"'
        ) from error
    if not path.stat().st_size:
        raise EmptyDataError(f"{path} is empty", received="0 bytes")
    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UndecodableFileError(f"{path} is no Parquet file, or damaged", received=str(error)[:200]) from error

    def records(wanted: Sequence[str]) -> Iterator[Record]:
        number = 0
        try:
            for batch in file.iter_batches(columns=list(wanted)):
                for values in batch.to_pylist():
                    number += 1
                    yield Record(f"{path}, row {number}", values)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise UndecodableFileError(f"{path} is damaged", received=str(error)[:200]) from error

    return list(file.schema_arrow.names), records


READERS: dict[str, Callable[[Path], tuple[list[str], Records]]] = {
    ".csv": lambda path: _delimited(path, delimiter=","),
    ".tsv": lambda path: _delimited(path, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
