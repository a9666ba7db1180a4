"""Public corpora, by name: found on the disk, or downloaded, checked and cached."""

import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from recurra.data.cache import cache_folder, write_json_lines
from recurra.data.download import Published, download, require_sum
from recurra.data.table import Splits, TextTable, read_table, splits_of
from recurra.errors import DataError, MissingDataError, UndecodableFileError

# The sum is the one that torchtext and PaddlePaddle state for this address.
IMDB = Published(
    "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    "7c2ac02c03563afcf9b574c7e56c153a",
    "aclImdb_v1.tar.gz",
)
FORMS = f"{IMDB.name}, the folder aclImdb out of it, or imdb/train.jsonl.gz and imdb/test.jsonl.gz"
SPLITS = ("train", "test")
CLASSES = ("neg", "pos")
REVIEW = re.compile(rf"aclImdb/({'|'.join(SPLITS)})/({'|'.join(CLASSES)})/(\d+)_\d+\.txt")


def imdb(data_dir: Path | None = None, *, published: Published = IMDB) -> Splits:
    """Film reviews and whether they are favourable (Maas et al. 2011): 25,000 to train on, 25,000 to test with.

    Looked for in `data_dir`; without it in ``$RECURRA_DATA``, then in the cache, and downloaded at last.

    Args:
        data_dir: a folder that holds ``aclImdb_v1.tar.gz``, the folder ``aclImdb`` out of it, or ``train.jsonl.gz``
            and ``test.jsonl.gz`` with the columns ``text`` and ``label`` (0 or 1), there or in its folder ``imdb``.

    Returns:
        Splits without a validation part, with the classes "neg" and "pos", sorted by class: shuffle before use.

    Raises:
        MissingDataError: it is not there, or cannot be downloaded. ChecksumError: the archive is another file.
        DataError: the files are damaged.
    """
    found, cached = find_imdb(data_dir, published=published), _cached(published)
    if found is None and data_dir:
        raise MissingDataError("imdb is not in the folder given", received=str(data_dir), instead=FORMS)
    if found is None:
        archive = download(published, cached)
        _unpack(archive, cached)
        archive.unlink()  # the tables hold all that is read of it
        return _of_tables(cached)
    if found.is_file():
        require_sum(found, published)
        if not _has_tables(cached):
            _unpack(found, cached)
        return _of_tables(cached)
    return _of_tables(found) if _has_tables(found) else _of_folder(found)


def find_imdb(data_dir: Path | None = None, *, published: Published = IMDB) -> Path | None:
    """The archive or the folder that :func:`imdb` would read; None: it would have to be downloaded.

    Args:
        data_dir: see :func:`imdb`; with it, nowhere else is looked.
    """
    given, cached = data_dir or os.environ.get("RECURRA_DATA"), _cached(published)
    for place in (Path(given), Path(given) / "imdb") if given else ():
        if _has_tables(place):
            return place
        for root in (place, place / "aclImdb"):
            if all((root / split / name).is_dir() for split in SPLITS for name in CLASSES):
                return root
        if (place / published.name).is_file():
            return place / published.name
    return cached if not data_dir and _has_tables(cached) else None


def _cached(published: Published) -> Path:
    return cache_folder() / f"imdb-{published.md5[:8]}"


def _has_tables(folder: Path) -> bool:
    return all((folder / f"{split}.jsonl.gz").is_file() for split in SPLITS)


def _of_tables(folder: Path) -> Splits:
    found = {}
    for split in SPLITS:
        table = read_table(folder / f"{split}.jsonl.gz", text="text", label="label")
        labels = table.labels or []
        unknown = sorted({*labels} - {"0", "1"})
        if unknown:
            raise DataError(f"{table.source} holds labels other than 0 and 1", received=", ".join(unknown[:5]))
        found[split] = TextTable(table.texts, [CLASSES[int(label)] for label in labels], "imdb")
    return splits_of(found["train"], test=found["test"])


def _of_folder(root: Path) -> Splits:
    reviews = {split: list(_files(root, split)) for split in SPLITS}
    tables = {
        split: TextTable([text for text, _ in rows], [CLASSES[label] for _, label in rows], "imdb")
        for split, rows in reviews.items()
    }
    return splits_of(tables["train"], test=tables["test"])


def _files(root: Path, split: str) -> Iterator[tuple[str, int]]:
    for label, name in enumerate(CLASSES):
        folder = root / split / name
        numbered = sorted((_number(path.name, folder), path) for path in folder.glob("*.txt"))
        if not numbered:
            raise MissingDataError("imdb's folder holds no reviews", received=str(folder), instead=FORMS)
        for _, path in numbered:
            yield _decoded(path.read_bytes(), str(path)), label


def _number(name: str, folder: Path) -> int:
    found = re.fullmatch(r"(\d+)_\d+\.txt", name)
    if not found:
        raise DataError(
            "a file in imdb's folder is no review", received=str(folder / name), instead="names like 12_8.txt"
        )
    return int(found[1])


def _unpack(archive: Path, folder: Path) -> None:
    """Write the archive's reviews as the tables that are read from then on, in the order of class and number."""
    rows: dict[str, list[tuple[int, int, str]]] = {split: [] for split in SPLITS}
    try:
        # One pass in the order of the file: a second would unpack it all again.
        with tarfile.open(archive, "r|gz") as members:
            for member in members:
                _refuse_unsafe(member, archive)
                found = REVIEW.fullmatch(member.name)
                file = members.extractfile(member) if found else None
                if found and file:
                    text = _decoded(file.read(), f"{archive}: {member.name}")
                    rows[found[1]].append((CLASSES.index(found[2]), int(found[3]), text))
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UndecodableFileError(f"{archive} is damaged or cut off", received=str(error)) from error
    for split in SPLITS:
        if {label for label, _, _ in rows[split]} != {0, 1}:
            raise DataError(f"{archive} holds no {split} reviews of both classes", instead=FORMS)
    for split in SPLITS:
        write_json_lines(folder / f"{split}.jsonl.gz", _as_rows(sorted(rows[split])))


def _as_rows(reviews: Iterable[tuple[int, int, str]]) -> Iterator[dict[str, str | int]]:
    return ({"label": label, "text": text} for label, _, text in reviews)


def _refuse_unsafe(member: tarfile.TarInfo, archive: Path) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise DataError(
            f"{archive} holds a member that is not safe to unpack",
            received=f"{member.name!r}, {'a file' if member.isfile() else 'no plain file'}",
            instead=f"the archive of {IMDB.url}",
        )


def _decoded(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UndecodableFileError(
            f"{source}, line {data.count(10, 0, error.start) + 1}: not valid UTF-8",
            received=f"byte {data[error.start]:#04x}",
        ) from error
