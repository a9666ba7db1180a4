"""The embedded corpus: documentation strings of the installed packages, read from their source."""

import ast
import hashlib
import json
import os
import sysconfig
import tokenize
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from recurra.data.cache import cache_folder, read_json_lines, write_json_lines
from recurra.data.table import Splits, TextTable, splits_of
from recurra.errors import EmptyDataError

FORMAT = 1  # to be raised with any change of what is read, so that older caches are left alone
STDLIB = "stdlib"
LEAST_WORDS = 20
LEAST_TEXTS = 100
LEFT_OUT = {"test", "tests", "testing", "idle_test", "site-packages", "dist-packages", "__pycache__", "_vendor"}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Docstring(NamedTuple):
    """One documentation string.

    Attributes:
        package: the top-level package it is of, or "stdlib". summary: its first line. body: what follows.
    """

    package: str
    summary: str
    body: str


class Source(NamedTuple):
    """A file to read, and the package it is of."""

    package: str
    path: Path


def docstrings(
    data_dir: Path | None = None,  # noqa: ARG001  the table of corpora passes it to all, and these need no files
    *,
    packages: Sequence[str] | None = None,
    roots: Sequence[Path] | None = None,
    least_texts: int = LEAST_TEXTS,
) -> Splits:
    """Bodies of documentation strings, each with its package as the class.

    Args:
        packages, roots, least_texts: see :func:`read_docstrings`.

    Returns:
        80 % to train on, 10 % to validate and 10 % to test with, parted by the sum of the body itself: another
        installation puts a text it shares into the same part.

    Raises:
        EmptyDataError: no package has enough texts.
    """
    parts: dict[str, list[Docstring]] = {"train": [], "valid": [], "test": []}
    for found in read_docstrings(packages=packages, roots=roots, least_texts=least_texts):
        parts[split_of(found.body)].append(found)
    tables = {
        split: TextTable([d.body for d in rows], [d.package for d in rows], "docstrings")
        for split, rows in parts.items()
    }
    return splits_of(tables["train"], tables["valid"], tables["test"])


def read_docstrings(
    *, packages: Sequence[str] | None = None, roots: Sequence[Path] | None = None, least_texts: int = LEAST_TEXTS
) -> list[Docstring]:
    """Documentation strings of at least 20 words after the first line, in the order of package and file.

    Source is parsed, never imported, and tests are left out. Of bodies that differ in case and spaces alone the first
    stands for all; one that several packages share is no package's, and left out. The result is kept in the cache
    until a file changes.

    Args:
        packages: only these; "stdlib" is the whole standard library. None: all that are installed.
        roots: folders that hold packages, in place of the standard library's and the installed packages'.
        least_texts: leave out packages with fewer.

    Raises:
        EmptyDataError: no package has enough texts.

    Example:
        >>> found = read_docstrings(packages=["stdlib"])  # doctest: +SKIP
        >>> {d.package for d in found}  # doctest: +SKIP
        {'stdlib'}
    """
    sources = list(_sources(packages, roots))
    cached = cache_folder() / f"docstrings-{_key(sources, least_texts)}.jsonl.gz"
    if cached.is_file():
        return [Docstring(**row) for row in read_json_lines(cached)]
    found = _enough(_distinct(_parsed(sources)), least_texts)
    if not found:
        raise EmptyDataError(
            f"no package has {least_texts} documentation strings of {LEAST_WORDS} words",
            received=f"{len(sources)} files of {len({s.package for s in sources})} packages",
            instead="other packages or roots, or a smaller least_texts",
        )
    write_json_lines(cached, (row._asdict() for row in found))
    return found


def split_of(body: str) -> str:
    """The part that a text belongs to: "train", "valid" or "test", by its content alone.

    Example:
        >>> split_of("Some  words.") == split_of("some words.")
        True
    """
    return ("train", "valid", "test")[max(0, int(_sum(body)[:8], 16) % 10 - 7)]


def _sources(packages: Sequence[str] | None, roots: Sequence[Path] | None) -> Iterator[Source]:
    if roots is None:
        paths = sysconfig.get_paths()
        if packages is None or STDLIB in packages:
            yield from (Source(STDLIB, path) for path in _files(Path(paths["stdlib"])))
        roots = sorted({Path(paths["purelib"]), Path(paths["platlib"])})
    for root in roots:
        for folder in sorted(root.iterdir()):
            # The folders of metadata are named like "numpy-2.4.dist-info", which is no name of a package.
            if folder.is_dir() and folder.name.isidentifier() and (packages is None or folder.name in packages):
                yield from (Source(folder.name, path) for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith(("test_", "conftest.")):
                yield Path(place, name)


def _key(sources: Iterable[Source], least_texts: int) -> str:
    about = [[s.package, str(s.path), (stat := s.path.stat()).st_size, stat.st_mtime_ns] for s in sources]
    settings = [FORMAT, LEAST_WORDS, least_texts, sorted(LEFT_OUT)]
    return hashlib.sha256(json.dumps([settings, about]).encode()).hexdigest()[:16]


def _parsed(sources: Sequence[Source]) -> Iterator[Docstring]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading the installed packages' documentation", total=len(sources))
        for source in sources:
            yield from _of_file(source)
            progress.advance(task)


def _of_file(source: Source) -> Iterator[Docstring]:
    try:
        with warnings.catch_warnings(), tokenize.open(source.path) as file:
            warnings.simplefilter("ignore")  # of the syntax of others
            tree = ast.parse(file.read())
    except (SyntaxError, ValueError):
        return  # packages ship templates and files for other versions of Python under .py; they are no source here
    for node in ast.walk(tree):
        text = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
        if text:
            summary, _, body = text.partition("\n")
            if len(body.split()) >= LEAST_WORDS and _is_whole(text):
                yield Docstring(source.package, summary.strip(), body.strip())


def _is_whole(text: str) -> bool:
    """Without half characters, which a string of source can hold and no file."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def _distinct(found: Iterable[Docstring]) -> list[Docstring]:
    packages: defaultdict[str, set[str]] = defaultdict(set)
    first: dict[str, Docstring] = {}
    for one in found:
        total = _sum(one.body)
        packages[total].add(one.package)
        first.setdefault(total, one)
    return [one for total, one in first.items() if len(packages[total]) == 1]


def _enough(found: list[Docstring], least: int) -> list[Docstring]:
    counts = Counter(one.package for one in found)
    return [one for one in found if counts[one.package] >= least]


def _sum(body: str) -> str:
    return hashlib.sha256(" ".join(body.casefold().split()).encode()).hexdigest()
