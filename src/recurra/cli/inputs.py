"""What a user names on the command line, found: data, texts, an output folder."""

import codecs
import errno
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recurra.errors import DataError, EmptyDataError, EmptyTextError, MissingDataError, OptionError

if TYPE_CHECKING:
    from recurra.data import Splits

_BLOCK = 1 << 16  # bytes, at most, that are read at a time from what is followed


def path_of(given: str) -> Path | None:
    """The file or folder that an argument names, if there is one; else it is a text."""
    try:
        return Path(given) if given and Path(given).exists() else None  # "" would be the folder that we are in
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return None


def read_splits(
    data: str, *, text: str | None, label: str | None, test: Path | None, data_dir: Path | None
) -> "Splits":
    """What :func:`recurra.data.load_splits` finds, with another table as its test part where one is given."""
    from recurra.data import load_splits, read_table
    from recurra.data.table import splits_of

    splits = load_splits(data, text=text, label=label, data_dir=data_dir)
    if test is None:
        return splits
    return splits_of(splits.train, splits.valid, read_table(test, text=text, label=label))


def read_texts(given: str, column: str | None) -> Sequence[str]:
    """Texts to classify: a table's column, the lines of another file or (``-``) of stdin, or the argument itself.

    All are read and checked, and memory holds none.

    Raises:
        EmptyDataError, EmptyTextError, UndecodableFileError: the message names the file and the line.
    """
    from recurra.data import read_table
    from recurra.data.records import READERS, kind_of, unpacked

    if given == "-":
        return _lines(sys.stdin.buffer, "standard input")
    path = path_of(given)
    if path is None:
        return [as_text(given)]
    if path.is_dir():
        raise OptionError(
            "there is a folder of that name, and folders are not read here",
            received=given,
            instead="one of its files; or, if it is meant as a text, - and the text on standard input",
        )
    if kind_of(path) in READERS:
        return read_table(path, text=column, need_label=False).texts
    with unpacked(path) as file:
        return _lines(file, str(path))


def as_text(given: str) -> str:
    """An argument that is a text.

    Raises:
        EmptyTextError: it is white space. UndecodableFileError: its bytes are not UTF-8.
    """
    if not given.strip():
        raise EmptyTextError("there is no text", received=repr(given), instead="a text, a file, or -")
    return require_utf8(given, "the text")


def require_utf8(given: str, name: str) -> str:
    """Give an argument back, or raise UndecodableFileError: the shell's bytes, as Python holds them, are not UTF-8."""
    from recurra.data.records import decoded

    return decoded(given.encode("utf-8", "surrogateescape"), name)


def read_documents(given: str, column: str | None, *, whole: bool = False) -> list[tuple[str, str]]:
    """Longer texts, each with the name of its file where it is one: what :func:`read_texts` takes, or a folder.

    Args:
        given: a folder, each of whose files, in it or further down, is a text, or what :func:`read_texts` takes.
        column: of a table; None: see :func:`recurra.data.read_pairs`.
        whole: a file, or stdin, is one text, not one a line.

    Raises:
        MissingDataError: `whole`, and there is no file. OptionError: a column of what is no table.
        EmptyDataError, EmptyTextError, UndecodableFileError: the message names the file.
    """
    from recurra.data import read_pairs
    from recurra.data.records import READERS, files_in, kind_of, unpacked

    def document(path: Path) -> str:
        with unpacked(path) as file:
            return _document(file, str(path))

    path = None if given == "-" else path_of(given)
    is_table = path and not whole and not path.is_dir() and kind_of(path) in READERS
    if column is not None and not is_table:
        raise OptionError(
            "--source names a column of a table, and this is none",
            received=f"{column}, {given}",
            instead="a .csv, .tsv, .jsonl or .parquet, or no --source",
        )
    if path and path.is_dir():
        files = files_in(path)
        if not files:
            raise EmptyDataError(f"{path} holds no files", instead="a folder of texts, a file each")
        return [(file.relative_to(path).as_posix(), document(file)) for file in files]
    if whole:
        if path is None and given != "-":
            raise MissingDataError(
                "--whole is of a file, and there is none of that name", received=given, instead="a file, or - for stdin"
            )
        return [("", document(path) if path else _document(sys.stdin.buffer, "standard input"))]
    if path and is_table:
        return [("", text) for text in read_pairs(path, source=column, need_target=False).sources]
    return [("", text) for text in read_texts(given, None)]


def _document(lines: Iterable[bytes], source: str) -> str:
    from recurra.data.records import decoded_lines

    text = "".join(decoded_lines(lines, source))
    if not text.strip():
        raise EmptyTextError(f"{source} holds no text", received=f"{len(text)} characters", instead="a file of text")
    return text


def lines_as_they_come(given: str, most: int = 256, pause: float = 0.2) -> Iterator[list[str]]:
    """Lines of stdin (``-``), until it ends, or of a file that may grow, without end; empty ones are left out.

    Args:
        given: ``-`` or a path.
        most: lines in a piece; fewer are given at once where no more are there.
        pause: seconds to wait before a file that has ended is looked at again.

    Raises:
        MissingDataError: there is no such file. UndecodableFileError: a line is not UTF-8; the message has its number.
    """
    from recurra.data.records import decoded

    path = Path(given)
    if given != "-" and not path.is_file():
        raise MissingDataError("there is no such file to follow", received=given, instead="a file, or - for stdin")
    source = "standard input" if given == "-" else given
    with nullcontext() if given == "-" else path.open("rb", buffering=0) as file:
        read = sys.stdin.buffer.read1 if file is None else file.read  # type: ignore[union-attr]  # what is there
        begun, number = list[bytes](), 0  # a line that has not ended yet, block by block
        while True:
            block = read(_BLOCK)
            if not block and file is not None:
                time.sleep(pause)
                continue
            *ended, rest = block.split(b"\n") if block else (b"", b"")
            whole = [b"".join([*begun, ended[0]]), *ended[1:]] if ended else []
            if whole and not number:
                whole[0] = whole[0].removeprefix(codecs.BOM_UTF8)
            begun = [rest] if ended else [*begun, rest]
            found = [decoded(line, f"{source}, line {number + k}").strip() for k, line in enumerate(whole, 1)]
            number += len(whole)
            texts = [text for text in found if text]
            yield from (texts[k : k + most] for k in range(0, len(texts), most))
            if not block:
                return


def _lines(file: Iterable[bytes], source: str) -> Sequence[str]:
    from recurra.data import Texts
    from recurra.data.records import decoded_lines

    def found() -> Iterator[str]:
        for number, line in enumerate(decoded_lines(file, source), 1):
            if not (text := line.strip()):
                raise EmptyTextError(
                    f"{source}, line {number}: there is no text", instead="one text a line, none empty"
                )
            yield text

    texts = Texts(found())
    if not texts:
        raise EmptyDataError(f"{source} is empty", instead="one text a line")
    return texts


def data_of(model: Any, run: Path, data: str | None, **chosen: Any) -> tuple[str, dict[str, Any]]:
    """What a reader of data is called with, its name and options: a command's, or else those of the training.

    Args:
        data: the command's; None: that of the training. chosen: its other options, by name; they come first.

    Raises:
        OptionError: the run does not say.
    """
    from recurra.data.pairs import PAIRS

    if data is not None:
        return data, chosen
    kept = {k: v for k, v in model.about_.get("notes", {}).items() if isinstance(v, str)}
    if "data" not in kept:
        raise OptionError("the run does not say what it was trained on", instead=f"recurra evaluate {run} DATA")
    path = Path(kept["data"])
    if path.name in PAIRS and not path.exists():  # older runs hold such a name as if it were a file's
        kept["data"] = path.name
    return kept["data"], {k: kept.get(k) if v is None else v for k, v in chosen.items()}


# what is judged on -> what is said of it behind its name
JUDGED = {"test": "", "all": "", "training": ", the data of the training"}


def judged(model: Any, data: str | None, splits: Any, *columns: str | None) -> tuple[Any, str]:
    """The part of some data that a run is judged on, and which it is, a key of ``JUDGED``.

    Args:
        data: the command's; None: `splits` are that of the training. columns: those that the command names.

    Raises:
        DataError: the data of the training have changed since.
        MissingDataError: they have parts, and none of them is to test with.
    """
    then = model.about_.get("notes", {}).get("corpus_fingerprint")
    if data is None and not any(columns) and then not in (None, splits.fingerprint):
        raise DataError(
            "what is found is not the data that the run was trained on",
            received=f"texts with the sum {splits.fingerprint[:12]}, not {str(then)[:12]}",
            instead="the data as they were, or recurra evaluate RUN DATA, which takes them as they are",
        )
    if splits.test:
        return splits.test, "test"
    if data is None:
        return splits.train, "training"
    if splits.valid:
        raise MissingDataError("there is no part to test with", received=data, instead="a file, by its path")
    return splits.train, "all"


def wide_console() -> Any:
    """A console of rich that cuts no table short: a file is as wide as what stands in it."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10**6
    return console


def run_folder_for(data: str, cell: str, *, resume: bool, root: Path = Path("runs")) -> Path:
    """The default of ``--out``: ``runs/<data>-<cell>``, with the next free number; to resume, the latest of them.

    Example:
        >>> run_folder_for("reviews.csv.gz", "lstm", resume=False, root=Path("nowhere")).as_posix()
        'nowhere/reviews-lstm'
    """
    stem = f"{Path(data).resolve().name.split('.')[0] or 'data'}-{cell}"
    free = free_run_folder(stem, root=root)
    number = int(free.name.removeprefix(stem)[1:] or 1)
    return root / _numbered(stem, max(1, number - 1)) if resume else free


def free_run_folder(stem: str, *, root: Path = Path("runs")) -> Path:
    """``runs/<stem>``, or with the next number where that is there already."""
    number = 1
    while (root / _numbered(stem, number)).exists():
        number += 1
    return root / _numbered(stem, number)


def _numbered(stem: str, number: int) -> str:
    return stem if number == 1 else f"{stem}-{number}"
