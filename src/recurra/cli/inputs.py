"""What a user names on the command line, found: data, texts, an output folder."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from recurra.errors import EmptyDataError, EmptyTextError, MissingDataError, UndecodableFileError, did_you_mean

if TYPE_CHECKING:
    from recurra.data import Splits

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
SPLITS = {"train": ("train",), "valid": ("valid", "validation", "val", "dev"), "test": ("test",)}


def is_table(path: Path) -> bool:
    """Whether the name of a file says that it is a table."""
    return any(suffix in TABLES for suffix in path.suffixes[-2:])


def read_splits(
    data: str, *, text: str | None, label: str | None, test: Path | None, data_dir: Path | None
) -> "Splits":
    """A corpus by name, one table, or a folder of ``train``, ``valid`` and ``test`` tables.

    Raises:
        MissingDataError: it is none of these. DataError: see :func:`recurra.data.read_table`.
    """
    from recurra.data import CORPORA, Splits, load_corpus, read_table

    path = Path(data)
    tested = read_table(test, text=text, label=label) if test else None
    if data in CORPORA:
        splits = load_corpus(data, data_dir=data_dir)
        return Splits(splits.train, splits.valid, tested or splits.test, splits.fingerprint)
    if path.is_dir():
        found = {split: _table_in(path, names) for split, names in SPLITS.items()}
        if found["train"] is None:
            raise MissingDataError(
                "the folder holds no table of training texts",
                received=f"{path}: {', '.join(sorted(p.name for p in path.iterdir())[:8]) or 'empty'}",
                instead=f"train{', train'.join(TABLES)} (.gz and .xz too), and test and valid likewise",
            )
        tables = {s: read_table(p, text=text, label=label) if p else None for s, p in found.items()}
    elif path.is_file():
        tables = {"train": read_table(path, text=text, label=label), "valid": None, "test": None}
    else:
        raise MissingDataError(
            "there is no file, no folder and no corpus of that name",
            received=repr(data),
            instead=did_you_mean(data, CORPORA),
        )
    assert tables["train"] is not None
    return Splits(tables["train"], tables["valid"], tested or tables["test"], "")


def _table_in(folder: Path, names: tuple[str, ...]) -> Path | None:
    found = [p for p in sorted(folder.iterdir()) if p.name.split(".")[0] in names and is_table(p)]
    return found[0] if found else None


def read_texts(given: str, column: str | None) -> list[str]:
    """Texts to classify: a table's column, the lines of another file or (``-``) of stdin, or the argument itself.

    Raises:
        EmptyDataError, EmptyTextError, UndecodableFileError: the message names the file and the line.
    """
    path = Path(given)
    if given == "-":
        return _lines(sys.stdin.buffer.read(), "standard input")
    if len(given) < 1024 and path.is_file():  # longer is no path, and asking would be an error of the system's
        if is_table(path):
            from recurra.data import read_table

            return read_table(path, text=column, need_label=False).texts
        return _lines(path.read_bytes(), str(path))
    if not given.strip():
        raise EmptyTextError("there is no text to classify", received=repr(given), instead="a text, a file, or -")
    return [given]


def _lines(content: bytes, source: str) -> list[str]:
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    if not lines:
        raise EmptyDataError(f"{source} is empty", instead="one text a line")
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UndecodableFileError(
                f"{source}, line {number}: not valid UTF-8",
                received=f"byte {line[error.start]:#04x} at column {error.start + 1}",
                instead="a file in UTF-8",
            ) from error
        if not text:
            raise EmptyTextError(f"{source}, line {number}: there is no text", instead="one text a line, none empty")
        texts.append(text)
    return texts


def run_folder_for(data: str, cell: str, *, resume: bool, root: Path = Path("runs")) -> Path:
    """The default of ``--out``: ``runs/<data>-<cell>``, with the next free number; to resume, the latest of them.

    Example:
        >>> run_folder_for("reviews.csv.gz", "lstm", resume=False, root=Path("nowhere")).as_posix()
        'nowhere/reviews-lstm'
    """
    stem = f"{Path(data).resolve().name.split('.')[0] or 'data'}-{cell}"
    number = 1
    while (root / _numbered(stem, number)).exists():
        number += 1
    return root / _numbered(stem, max(1, number - 1) if resume else number)


def _numbered(stem: str, number: int) -> str:
    return stem if number == 1 else f"{stem}-{number}"
