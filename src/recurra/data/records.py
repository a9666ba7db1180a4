"""The rows of a table's file, each with the place it stands at."""

import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
    try:
        with OPENERS.get(path.suffix.lower(), Path.open)(path, "rb") as file:
            data: bytes = file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UndecodableFileError(
            f"{path} is damaged or cut off", received=str(error), instead="a whole copy of it"
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With a byte order mark the codec counts from behind it.
        start = error.start + len(data) - len(error.object)
        line, column = data.count(b"\n", 0, start) + 1, start - data.rfind(b"\n", 0, start)
        raise UndecodableFileError(
            f"{path}, line {line}: not valid UTF-8",
            received=f"byte {data[start]:#04x} at column {column}",
            instead="a file in UTF-8: iconv -f latin1 -t utf8, if it is in Latin 1",
        ) from error
    if not text.strip():
        raise EmptyDataError(f"{path} is empty", received=f"{len(data)} bytes")
    return text


def _delimited(path: Path, **form: Any) -> tuple[list[str], Records]:
    # csv refuses fields of more than 128 KiB by default, and the limit is the process's.
    before = csv.field_size_limit(2**31 - 1)
    try:
        rows = list(_rows(path, read_text(path), form))
    finally:
        csv.field_size_limit(before)
    (line, header), *body = rows
    columns = [name.strip() for name in header]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"{path}, line {line}: columns of the same name", received=", ".join(map(repr, twice)))

    def records(_: Sequence[str]) -> Iterator[Record]:
        for line, row in body:
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


def _rows(path: Path, text: str, form: dict[str, Any]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, **form)
    line = 1
    try:
        for row in reader:
            yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise UndecodableFileError(
            f"{path}, line {line}: not valid CSV", received=str(error), instead='a quote within quotes doubled: ""'
        ) from error


def _json_lines(path: Path) -> tuple[list[str], Records]:
    # Not splitlines: it breaks at signs that JSON allows within a string.
    found = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
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
                f"{where}: no JSON object", received=line[:60], instead='{"text": …, "label": …}'
            )
        found.append(Record(where, values))
    return [*dict.fromkeys(name for record in found for name in record.values)], lambda _: iter(found)


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
