"""The rows of a table's file, each with the place it stands at."""

import codecs
import csv
import gzip
import io
import itertools
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, TextIO

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
    kind = kind_of(path)
    if kind not in READERS or (kind == ".parquet" and path.suffix.lower() in OPENERS):
        raise DataError(
            f"{path}: the name does not say what kind of table it is",
            received=path.suffix or "no ending",
            instead=f"{', '.join(READERS)}; .gz or .xz after the first three",
        )
    if not path.is_file():
        raise MissingDataError("there is no such file", received=str(path))
    columns, records = READERS[kind](path)
    if not columns:
        raise EmptyDataError(f"{path} has no columns", instead="a column of texts, with a name")
    return columns, records


def kind_of(path: Path) -> str:
    """The ending that says what a file holds, in small letters: that before ``.gz`` or ``.xz``.

    Example:
        >>> kind_of(Path("a/NEW.CSV")), kind_of(Path("b.jsonl.gz")), kind_of(Path("c.csv.txt"))
        ('.csv', '.jsonl', '.txt')
    """
    name = Path(path.name)
    return (Path(name.stem) if name.suffix.lower() in OPENERS else name).suffix.lower()


def files_in(folder: Path) -> list[Path]:
    """The files of a folder, in it or further down, in the order of their paths, without hidden ones."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in files if not any(name.startswith(".") for name in path.relative_to(folder).parts)]


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
    try:
        with unpacked(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError:
        with unpacked(path) as raw:  # once more, to find the line
            for _ in decoded_lines(raw, str(path)):
                pass
        raise


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if its name ends in ``.gz`` or ``.xz``.

    Raises:
        UndecodableFileError: also where it is read, within the block: it is damaged.
    """
    try:
        with OPENERS.get(path.suffix.lower(), Path.open)(path, "rb") as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UndecodableFileError(
            f"{path} is damaged or cut off", received=str(error), instead="a whole copy of it"
        ) from error


def decoded_lines(lines: Iterable[bytes], source: str) -> Iterator[str]:
    """The lines of a file from its beginning as text, which a byte order mark is no part of.

    Raises:
        UndecodableFileError: one is not valid UTF-8; the message has `source` and the line's number.
    """
    for number, line in enumerate(lines, 1):
        if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UndecodableFileError(
                f"{source} is in UTF-16",
                received=f"{line[:2].hex(' ')} at its beginning",
                instead="iconv -f utf-16 -t utf-8",
            )
        yield decoded(line if number > 1 else line.removeprefix(codecs.BOM_UTF8), f"{source}, line {number}")


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


def require_characters(text: str, where: str) -> None:
    """Raise UndecodableFileError where a text holds half a character: JSON can write one, and no tokenizer takes it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UndecodableFileError(
            f"{where} holds half a character",
            received=f"{text[error.start]!r} at character {error.start + 1}",
            instead="text without unpaired surrogates",
        ) from error


def _require_text(path: Path) -> None:
    next(piece for piece in read_pieces(path) if piece.strip())


def _delimited(path: Path, **form: Any) -> tuple[list[str], Records]:
    _require_text(path)
    rows = lambda: itertools.dropwhile(_is_blank, _rows(path, form))
    line, header = next(rows(), (1, []))
    columns = [name.strip() for name in header]
    _require_different(columns, f"{path}, line {line}")

    def records(_: Sequence[str]) -> Iterator[Record]:
        for line, row in itertools.islice(rows(), 1, None):
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


def _require_different(columns: Sequence[str], where: str) -> None:
    twice = sorted(name for name, count in Counter(columns).items() if count > 1)
    if twice:
        raise DataError(f"{where}: columns of the same name", received=", ".join(map(repr, twice)))


def _is_blank(found: tuple[int, list[str]]) -> bool:
    _, row = found
    return len(row) < 2 and not "".join(row).strip()


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
                values = json.loads(line, object_pairs_hook=_once)
            except (ValueError, RecursionError) as error:  # also a number of too many digits, and too many brackets
                said = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
                raise UndecodableFileError(
                    f"{where}: not valid JSON", received=said[:200], instead="one JSON object a line"
                ) from error
            if not isinstance(values, dict):
                raise UndecodableFileError(
                    f"{where}: no JSON object", received=line[:60].rstrip(), instead='{"text": …, "label": …}'
                )
            yield Record(where, values)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {name!r} is there twice")
    return found


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
    columns = list(file.schema_arrow.names)
    _require_different(columns, str(path))

    def records(wanted: Sequence[str]) -> Iterator[Record]:
        number = 0
        try:
            for batch in file.iter_batches(columns=list(wanted)):
                for values in batch.to_pylist():
                    number += 1
                    yield Record(f"{path}, row {number}", values)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise UndecodableFileError(f"{path} is damaged", received=str(error)[:200]) from error

    return columns, records


READERS: dict[str, Callable[[Path], tuple[list[str], Records]]] = {
    ".csv": lambda path: _delimited(path, delimiter=","),
    ".tsv": lambda path: _delimited(path, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
