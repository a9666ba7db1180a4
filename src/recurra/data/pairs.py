"""Pairs of texts, a source and what is to be written of it: from tables, and corpora by name."""

import functools
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recurra.data.corpora import CORPORA, PARTS, TABLES, Corpus, table_in
from recurra.data.docstrings import part_of, read_docstrings
from recurra.data.records import Record, read_records, read_text
from recurra.data.table import column_named, text_in
from recurra.errors import DataError, EmptyDataError, MissingDataError, did_you_mean

SOURCE_COLUMNS = ("source", "body", "text", "article", "document")
TARGET_COLUMNS = ("target", "summary", "subject", "title", "headline", "translation")
MIN_SUMMARY_WORDS = 3  # of a docstring; shorter ones are names
Rows = list[tuple[str, list[str]]]  # a source and what was written of it, in most corpora one text


@dataclass(frozen=True)
class PairTable:
    """A pair a row.

    Attributes:
        sources: none of them empty. targets: as many, or None. origin: a path or a corpus's name, for messages.
        references: all that people wrote of each source, its target first; None where that is all.
    """

    sources: list[str]
    targets: list[str] | None
    origin: str
    references: list[list[str]] | None = None

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
            columns = [table.sources, table.targets or []] if table else [[], []]
            if table and table.references:
                columns.append([one for several in table.references for one in several])
            for column in columns:
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
    parts: dict[str, Rows] = {part: [] for part in PARTS}
    for one in read_docstrings(packages, **options):
        if len(one.summary.split()) >= MIN_SUMMARY_WORDS:
            parts[part_of(one.body)].append((one.body, [one.summary]))
    return _splits("docstrings", parts)


def tatoeba_part(english: str) -> str:
    """The part of a sentence of tatoeba, so that its translations stay together.

    Example:
        >>> tatoeba_part("Go."), tatoeba_part("Hi.")
        ('test', 'train')
    """
    return {0: "test", 1: "valid"}.get(zlib.crc32(english.encode()) % 20, "train")


def _json_corpus(name: str, pair: Callable[[Record], tuple[str, list[str]]]) -> Callable[[Path | None], PairSplits]:
    def load(data_dir: Path | None) -> PairSplits:
        folder = _folder(name, data_dir)
        return _splits(name, {part: [*_pairs(folder / file, pair)] for part, file in zip(PARTS, JSON, strict=True)})

    return load


def _pairs(path: Path, pair: Callable[[Record], tuple[str, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    _, records = read_records(path)
    for record in records(()):
        try:
            source, (first, *others) = pair(record)
            yield _text(source), [_text(target) for target in (first, *others)]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{record.where}: no row of this corpus", received=repr(error)[:100]) from error


def _multi30k(data_dir: Path | None) -> PairSplits:
    folder = _folder("multi30k", data_dir)
    parts = {}
    for part, stem in zip(PARTS, FLICKR, strict=True):
        sides = [read_text(folder / f"{stem}.{side}.gz").strip("\n").split("\n") for side in ("en", "de")]
        if len(sides[0]) != len(sides[1]):
            raise DataError(
                f"{folder}: the lines of {stem} are not aligned", received=f"{len(sides[0])} and {len(sides[1])}"
            )
        parts[part] = [(english, [german]) for english, german in zip(*sides, strict=True)]
    return _splits("multi30k", parts)


def _tatoeba(data_dir: Path | None) -> PairSplits:
    path = _folder("tatoeba", data_dir) / "fra.txt.gz"
    parts: dict[str, Rows] = {part: [] for part in PARTS}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        english, tab, french = line.partition("\t")
        if not tab:
            raise DataError(
                f"{path}, line {number}: no pair", received=line[:60], instead="an English text, a tab, French"
            )
        parts[tatoeba_part(english)].append((english.strip(), [french.split("\t")[0].strip()]))
    return _splits("tatoeba", parts)


def _splits(name: str, parts: dict[str, Rows]) -> PairSplits:
    tables = {}
    for part, rows in parts.items():
        # A handful of rows of public corpora lack one side.
        whole = [(source, [one for one in targets if one]) for source, targets in rows if source and targets[0]]
        sources, references = [source for source, _ in whole], [targets for _, targets in whole]
        several = any(len(targets) > 1 for targets in references)
        tables[part] = PairTable(sources, [first for first, *_ in references], name, references if several else None)
    if not tables["train"].sources:
        raise EmptyDataError(f"{name} holds no training pairs")
    return PairSplits(*(tables[part] if tables[part].sources else None for part in PARTS))  # type: ignore[arg-type]


# name -> the folder that it is looked for in, and its files
JSON = ("train.jsonl.gz", "dev.jsonl.gz", "test.jsonl.gz")
FLICKR = ("train", "val", "test_2016_flickr")
FILES = {
    **{name: (name, JSON) for name in ("aeslc", "scitldr", "django_pseudocode")},
    "multi30k": ("multi30k", tuple(f"{stem}.{side}.gz" for stem in FLICKR for side in ("en", "de"))),
    "tatoeba": ("tatoeba_fra_eng", ("fra.txt.gz",)),
}


def _find(name: str, data_dir: Path | None) -> Path | None:
    given, (folder, files) = data_dir or os.environ.get("RECURRA_DATA"), FILES[name]
    places = (Path(given), Path(given) / folder) if given else ()
    return next((place for place in places if all((place / file).is_file() for file in files)), None)


def _folder(name: str, data_dir: Path | None) -> Path:
    if place := _find(name, data_dir):
        return place
    given, (folder, files) = data_dir or os.environ.get("RECURRA_DATA"), FILES[name]
    raise MissingDataError(
        f"{name} is not {'in the folder given' if given else 'here, and is not downloaded'}",
        received=str(given) if given else "neither --data-dir nor $RECURRA_DATA",
        instead=f"a folder {folder} with {', '.join(files[:3])}{', …' if len(files) > 3 else ''} in it; "
        f"it comes from {PAIRS[name].origin}",
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is missing: {value!r}")
    return " ".join(value.split())


def _public(name: str, load: Callable[[Path | None], PairSplits], **said: str) -> Corpus[PairSplits]:
    absent = "refused; it is not downloaded, but read from --data-dir or $RECURRA_DATA"
    return Corpus(find=functools.partial(_find, name), load=load, absent=absent, **said)


PAIRS: dict[str, Corpus[PairSplits]] = {
    "docstrings": Corpus(
        description=CORPORA["docstrings"].description,
        task="the first paragraph, from what follows it",
        size="some 20,000 pairs; it depends on what is installed",
        origin=CORPORA["docstrings"].origin,
        terms=CORPORA["docstrings"].terms,
        absent=CORPORA["docstrings"].absent,
        find=CORPORA["docstrings"].find,
        load=lambda _: docstring_pairs(),
    ),
    "aeslc": _public(
        "aeslc",
        _json_corpus(
            "aeslc", lambda row: (row.values["body"], [row.values["subject"], *row.values.get("annotations", ())])
        ),
        description="e-mails and their subject lines (Zhang & Tetreault 2019)",
        task="the subject of an e-mail; to test with there are three more that others wrote",
        size="14,436 pairs to train on, 1,960 for validation, 1,906 to test with",
        origin="github.com/ryanzhumich/AESLC",
        terms="CC BY-NC-SA 4.0",
    ),
    "scitldr": _public(
        "scitldr",
        _json_corpus("scitldr", lambda row: (" ".join(row.values["source"]), row.values["target"])),
        description="abstracts of papers and one sentence (Cachola et al. 2020), SciTLDR-A",
        task="one sentence for an abstract, that of the authors; to test with there are several of others",
        size="1,992 pairs to train on, 619 for validation, 618 to test with",
        origin="github.com/allenai/scitldr, SciTLDR-A",
        terms="Apache-2.0",
    ),
    "django_pseudocode": _public(
        "django_pseudocode",
        _json_corpus("django_pseudocode", lambda row: (row.values["code"], [row.values["text"]])),
        description="lines of Python and what they do in English (Oda et al. 2015)",
        task="the English of a line of Python",
        size="16,000 pairs to train on, 1,000 for validation, 1,805 to test with",
        origin="github.com/odashi/ase15-django-dataset",
        terms="MIT",
    ),
    "multi30k": _public(
        "multi30k",
        _multi30k,
        description="captions of pictures (Elliott et al. 2016)",
        task="English to German",
        size="29,000 pairs to train on, 1,014 for validation, 1,000 to test with",
        origin="github.com/multi30k/dataset, data/task1/raw",
        terms="no licence stated; derived from Flickr30K",
    ),
    "tatoeba": _public(
        "tatoeba",
        _tatoeba,
        description="short sentences; an English one and all its translations are in one part",
        task="English to French",
        size="128,821 pairs to train on, 6,971 for validation, 6,995 to test with",
        origin="www.manythings.org/anki/fra-eng.zip, sentences of tatoeba.org",
        terms="CC BY 2.0",
    ),
}
