"""Running text: a corpus by its name, a text file, a table's column, or a folder of texts."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from recurra.data.corpora import CORPORA, PARTS, TABLES, load_corpus
from recurra.data.records import files_in, kind_of, read_pieces
from recurra.data.stored import Texts
from recurra.data.table import Splits, TextTable, read_table, splits_of
from recurra.errors import DataError, MissingDataError, OptionError, did_you_mean

TEXTS = (".txt", ".text", ".md", ".rst")


def load_text(source: Path | str, *, text: str | None = None, data_dir: Path | str | None = None) -> Splits:
    """Texts to learn a language from.

    A corpus's name comes first; for a file or folder of that name write ``./ptb``. Of a folder, what is in folders
    called ``train``, ``valid`` (``validation``, ``val``, ``dev``) and ``test``, and files with these between the dots
    of their names (``train.txt``, ``ptb.valid.txt.gz``), in small letters or capital ones, are its parts; where nothing
    is called ``train``, all others in the order of their paths are. What is hidden, by a dot before its name, is left
    out.

    Args:
        source: a name or a path: of a table (.csv .tsv .jsonl .parquet), of a folder, or of any other file, which is
            then text in UTF-8, also as ``.gz`` or ``.xz``.
        text: the column of the texts, in a table.
        data_dir: see :func:`recurra.data.load_corpus`.

    Returns:
        Splits of tables without labels, a text a file, row or document; memory does not hold them.

    Raises:
        MissingDataError: it is none of these, or the folder holds no texts.
        OptionError: `text` is given, but there is no table.
        UndecodableFileError, EmptyDataError, DataError: a file cannot be read; the message names it.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for part in ("train", "test"):
        ...         _ = Path(folder, f"{part}.txt").write_text(f"what to {part}\\n")
        ...     splits = load_text(folder)
        >>> [*splits.train.texts], splits.valid, [*splits.test.texts]
        (['what to train\\n'], None, ['what to test\\n'])
    """
    path = Path(source)
    if source in CORPORA or (path.is_file() and kind_of(path) not in TABLES):
        _require_no_column(text, source)
    if source in CORPORA:
        return _unlabelled(load_corpus(str(source), data_dir=data_dir))
    if path.is_file():
        return splits_of(_read([path], text, str(path)))
    if not path.is_dir():
        raise MissingDataError(
            "there is no file, no folder and no corpus of that name",
            received=repr(str(source)),
            instead=did_you_mean(str(source), CORPORA),
        )
    files = [p for p in files_in(path) if kind_of(p) in (*TEXTS, *TABLES)]
    if not files:
        raise MissingDataError(
            "the folder holds no texts",
            received=f"{path}: {', '.join(sorted(p.name for p in path.iterdir())[:8]) or 'empty'}",
            instead=f"files in UTF-8 called {', '.join(TEXTS)} (.gz and .xz too), or tables: {', '.join(TABLES)}",
        )
    if not any(kind_of(p) in TABLES for p in files):
        _require_no_column(text, source)
    by_folder = {p: _part(p.relative_to(path).parts[:-1]) for p in files}
    part_of = {p: by_folder[p] or _part(p.name.split(".")[:-1]) for p in files}
    parts = {part: [p for p in files if part_of[p] == part] for part in PARTS}
    for found in parts.values():
        named = [p for p in found if not by_folder[p]]
        if len(named) > 1:
            raise DataError(
                "the folder holds several texts of the same part",
                received=f"{path}: {', '.join(p.name for p in named)}",
                instead="one of them, or a folder of them",
            )
    if not parts["train"]:
        parts["train"] = [p for p in files if p not in parts["valid"] + parts["test"]]
    train, valid, test = (_read(found, text, str(path)) if found else None for found in parts.values())
    if train is None:
        raise MissingDataError(
            "the folder holds no text to train on",
            received=f"{path}: {', '.join(p.name for p in files)}",
            instead="a text called train.txt, or by any other name",
        )
    return splits_of(train, valid, test)


def _part(names: Sequence[str]) -> str | None:
    """The part that the first of these names which is that of a part says."""
    return next((part for name in names for part, usual in PARTS.items() if name.lower() in usual), None)


def _require_no_column(text: str | None, source: Path | str) -> None:
    if text is not None:
        raise OptionError(
            "text names a column of a table, and there is none",
            received=f"{text!r}, {source}",
            instead="without it (--text on the command line)",
        )


def _read(files: list[Path], column: str | None, source: str) -> TextTable:
    def found() -> Iterator[str | Iterable[str]]:
        for path in files:
            if kind_of(path) in TABLES:
                yield from read_table(path, text=column, need_label=False).texts
            else:
                yield read_pieces(path)

    return TextTable(Texts(found()), None, source)


def _unlabelled(splits: Splits) -> Splits:
    kept = lambda texts: texts if isinstance(texts, Texts) else Texts(texts)
    train, valid, test = (
        t and TextTable(kept(t.texts), None, t.source) for t in (splits.train, splits.valid, splits.test)
    )
    assert train is not None
    return splits_of(train, valid, test)
