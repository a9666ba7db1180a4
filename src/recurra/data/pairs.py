"""Pairs of texts, a source and what is to be written of it: from tables, and corpora by name."""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recurra.data.corpora import PARTS, TABLES, table_in
from recurra.data.docstrings import part_of, read_docstrings
from recurra.data.records import Record, read_records, read_text
from recurra.data.table import column_named, text_in
from recurra.errors import DataError, EmptyDataError, MissingDataError, did_you_mean

SOURCE_COLUMNS = ("source", "body", "text", "article", "document")
TARGET_COLUMNS = ("target", "summary", "subject", "title", "headline", "translation")
MIN_SUMMARY_WORDS = 3  # of a docstring; shorter ones are names


@dataclass(frozen=True)
class PairTable:
    """A pair a row.

    Attributes:
        sources: none of them empty. targets: as many, or None. origin: a path or a corpus's name, for messages.
    """

    sources: list[str]
    targets: list[str] | None
    origin: str

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True)
class PairSplits:
    """The parts of a data set of pairs; `fingerprint` is the SHA-256 sum of all of its texts."""

    train: PairTable
    valid: PairTable | None
    test: PairTable | None

    @property
    def fingerprint(self) -> str:
        """What a run was trained on, as hexadecimal digits."""
        total = hashlib.sha256()
        for table in (self.train, self.valid, self.test):
            for column in (table.sources, table.targets or []) if table else ([], []):
                for value in column:
                    data = value.encode("utf-8", "surrogatepass")
                    total.update(b"%d:" % len(data))
                    total.update(data)
                total.update(b";")
        return total.hexdigest()


def read_pairs(
    path: Path | str, *, source: str | None = None, target: str | None = None, need_target: bool = True
) -> PairTable:
    """Pairs from two columns of a file.

    Args:
        path: see :func:`recurra.data.read_table`.
        source: the column of what is read; None: the first there is of source, body, text, article, document.
        target: the column of what is to be written; None: the first of target, summary, subject, title, headline,
            translation.
        need_target: False: targets are read only if `target` names their column.

    Raises:
        MissingDataError, UndecodableFileError, MissingColumnError, EmptyDataError, EmptyTextError, DataError: see
            :func:`recurra.data.read_table`.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "mail.tsv")
        ...     _ = path.write_text("body\\tsubject\\nWe meet at ten.\\tMeeting\\n")
        ...     pairs = read_pairs(path)
        >>> pairs.sources, pairs.targets
        (['We meet at ten.'], ['Meeting'])
    """
    path = Path(path)
    columns, records = read_records(path)
    source = column_named(path, columns, source, SOURCE_COLUMNS, "source")
    if need_target or target is not None:
        target = column_named(path, columns, target, TARGET_COLUMNS, "target")
    if source == target:
        raise DataError(f"{path}: source and target are the same column", received=repr(source), instead="two columns")
    sources, targets = [], []
    for record in records([source] if target is None else [source, target]):
        sources.append(text_in(record, source))
        if target is not None:
            targets.append(text_in(record, target))
    if not sources:
        raise EmptyDataError(f"{path} has no rows", received=f"only the columns {', '.join(columns)}")
    return PairTable(sources, None if target is None else targets, str(path))


@dataclass(frozen=True)
class PairCorpus:
    """A row of the table of corpora of pairs.

    Attributes:
        description: what is read and written. origin: where it comes from. terms: see :class:`recurra.data.Corpus`.
        load: reads it, given the folder where the files are, or None.
    """

    description: str
    origin: str
    terms: str
    load: Callable[[Path | None], PairSplits]


def load_pairs(
    data: Path | str,
    *,
    source: str | None = None,
    target: str | None = None,
    data_dir: Path | str | None = None,
    need_target: bool = True,
) -> PairSplits:
    """A corpus of pairs by name, one table, or a folder of tables called ``train``, ``valid`` and ``test``.

    Args:
        data: the name, which comes first, or the path. source, target, need_target: see :func:`read_pairs`.
        data_dir: where a corpus's files are; None: ``$RECURRA_DATA``.

    Raises:
        MissingDataError: it is none of these, or a corpus's files are not there.
        DataError: see :func:`read_pairs`.
    """
    if data in PAIRS:
        return PAIRS[str(data)].load(Path(data_dir) if data_dir is not None else None)
    path = Path(data)
    options: dict[str, Any] = {"source": source, "target": target, "need_target": need_target}
    if path.is_file():
        return PairSplits(read_pairs(path, **options), None, None)
    if not path.is_dir():
        raise MissingDataError(
            "there is no file, no folder and no corpus of pairs of that name",
            received=repr(str(data)),
            instead=did_you_mean(str(data), PAIRS),
        )
    found = {part: table_in(path, names) for part, names in PARTS.items()}
    train, valid, test = (read_pairs(one, **options) if one else None for one in found.values())
    if train is None:
        raise MissingDataError(
            "the folder holds no table of training texts",
            received=f"{path}: {', '.join(sorted(p.name for p in path.iterdir())[:8]) or 'empty'}",
            instead=f"train{', train'.join(TABLES)} (.gz and .xz too), and valid and test likewise",
        )
    return PairSplits(train, valid, test)


# --- corpora ----------------------------------------------------------------------------------------------------------


def docstring_pairs(packages: Sequence[str] | None = None, **options: Any) -> PairSplits:
    """What a docstring says below its first paragraph, and that paragraph: a summary, if it has three words.

    The parts are those of :func:`recurra.data.docstrings`, by the sum of the body. Of one body in one part there is one
    pair; a summary of two bodies may stand in two parts.

    Args:
        packages, options: see :func:`recurra.data.read_docstrings`.
    """
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "valid": [], "test": []}
    for one in read_docstrings(packages, **options):
        if len(one.summary.split()) >= MIN_SUMMARY_WORDS:
            parts[part_of(one.body)].append((one.body, one.summary))
    return _splits("docstrings", parts)


def tatoeba_part(english: str) -> str:
    """The part of a sentence of tatoeba, so that its translations stay together.

    Example:
        >>> tatoeba_part("Go."), tatoeba_part("Hi.")
        ('test', 'train')
    """
    return {0: "test", 1: "valid"}.get(zlib.crc32(english.encode()) % 20, "train")


def _json_corpus(name: str, pair: Callable[[Record], tuple[str, str]]) -> Callable[[Path | None], PairSplits]:
    def load(data_dir: Path | None) -> PairSplits:
        files = {"train": "train.jsonl.gz", "valid": "dev.jsonl.gz", "test": "test.jsonl.gz"}
        folder = _folder(name, name, tuple(files.values()), data_dir)
        return _splits(name, {part: [*_pairs(folder / file, pair)] for part, file in files.items()})

    return load


def _pairs(path: Path, pair: Callable[[Record], tuple[str, str]]) -> Iterator[tuple[str, str]]:
    _, records = read_records(path)
    for record in records(()):
        try:
            source, target = pair(record)
            yield " ".join(source.split()), " ".join(target.split())
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise DataError(f"{record.where}: no row of this corpus", received=repr(error)[:100]) from error


def _multi30k(data_dir: Path | None) -> PairSplits:
    stems = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
    names = tuple(f"{stem}.{side}.gz" for stem in stems.values() for side in ("en", "de"))
    folder = _folder("multi30k", "multi30k", names, data_dir)
    parts = {}
    for part, stem in stems.items():
        sides = [read_text(folder / f"{stem}.{side}.gz").strip("\n").split("\n") for side in ("en", "de")]
        if len(sides[0]) != len(sides[1]):
            raise DataError(
                f"{folder}: the lines of {stem} are not aligned", received=f"{len(sides[0])} and {len(sides[1])}"
            )
        parts[part] = [*zip(*sides, strict=True)]
    return _splits("multi30k", parts)


def _tatoeba(data_dir: Path | None) -> PairSplits:
    path = _folder("tatoeba", "tatoeba_fra_eng", ("fra.txt.gz",), data_dir) / "fra.txt.gz"
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "valid": [], "test": []}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        english, tab, french = line.partition("\t")
        if not tab:
            raise DataError(
                f"{path}, line {number}: no pair", received=line[:60], instead="an English text, a tab, French"
            )
        parts[tatoeba_part(english)].append((english.strip(), french.split("\t")[0].strip()))
    return _splits("tatoeba", parts)


def _splits(name: str, parts: dict[str, list[tuple[str, str]]]) -> PairSplits:
    tables = {
        # A handful of rows of public corpora lack one side.
        part: PairTable([s for s, t in rows if s and t], [t for s, t in rows if s and t], name)
        for part, rows in parts.items()
    }
    if not tables["train"].sources:
        raise EmptyDataError(f"{name} holds no training pairs")
    return PairSplits(*(tables[part] if tables[part].sources else None for part in PARTS))  # type: ignore[arg-type]


def _folder(name: str, folder: str, files: Sequence[str], data_dir: Path | None) -> Path:
    given = data_dir or os.environ.get("RECURRA_DATA")
    for place in (Path(given), Path(given) / folder) if given else ():
        if all((place / file).is_file() for file in files):
            return place
    raise MissingDataError(
        f"{name} is not {'in the folder given' if given else 'here, and is not downloaded'}",
        received=str(given) if given else "neither --data-dir nor $RECURRA_DATA",
        instead=f"a folder {folder} with {', '.join(files[:3])}{', …' if len(files) > 3 else ''} in it; "
        f"it comes from {PAIRS[name].origin}",
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is missing: {value!r}")
    return value


PAIRS = {
    "docstrings": PairCorpus(
        "documentation strings: what follows the first paragraph, and the first paragraph",
        "embedded: read from the source of the standard library and the installed packages, and cached",
        "that of each package; nothing is redistributed",
        lambda _: docstring_pairs(),
    ),
    "aeslc": PairCorpus(
        "e-mails and their subject lines (Zhang & Tetreault 2019)",
        "github.com/ryanzhumich/AESLC",
        "CC BY-NC-SA 4.0",
        _json_corpus("aeslc", lambda row: (_text(row.values["body"]), _text(row.values["subject"]))),
    ),
    "scitldr": PairCorpus(
        "abstracts of papers and one sentence (Cachola et al. 2020); the first of several targets",
        "github.com/allenai/scitldr, SciTLDR-A",
        "Apache-2.0",
        _json_corpus("scitldr", lambda row: (" ".join(row.values["source"]), _text(row.values["target"][0]))),
    ),
    "django_pseudocode": PairCorpus(
        "a line of Python and what it does in English (Oda et al. 2015)",
        "github.com/odashi/ase15-django-dataset",
        "MIT",
        _json_corpus("django_pseudocode", lambda row: (_text(row.values["code"]), _text(row.values["text"]))),
    ),
    "multi30k": PairCorpus(
        "captions of pictures, English to German (Elliott et al. 2016)",
        "github.com/multi30k/dataset, data/task1/raw",
        "no licence stated; derived from Flickr30K",
        _multi30k,
    ),
    "tatoeba": PairCorpus(
        "short sentences, English to French; an English sentence and all its translations are in one part",
        "www.manythings.org/anki/fra-eng.zip, sentences of tatoeba.org",
        "CC BY 2.0",
        _tatoeba,
    ),
}
