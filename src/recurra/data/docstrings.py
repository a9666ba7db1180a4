"""The embedded corpus: docstrings of what is installed, read from the sources. Nothing is imported to read it."""

import ast
import gc
import hashlib
import json
import os
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from recurra.data.cache import cache_folder, read_json_lines, write_json_lines
from recurra.data.table import Splits, TextTable, splits_of
from recurra.errors import EmptyDataError, OptionError, UndecodableFileError, UnknownNameError

STDLIB = "stdlib"
LEFT_OUT = {
    # tests: their docstrings speak of tests, whatever the package
    *("test", "tests", "_test", "_tests", "idle_test"),
    # other packages' sources inside of a package: their label would be wrong
    *("_vendor", "_vendored", "vendor", "vendored", "externals"),
    *("site-packages", "dist-packages"),  # installed packages, where they lie within the standard library
}
# The default: they come with Recurra's own dependencies, so that a corpus read elsewhere has the same classes.
PACKAGES = (
    *(STDLIB, "matplotlib", "networkx", "numpy", "pandas", "scipy", "sklearn", "sympy", "torch", "torchmetrics"),
)
MIN_WORDS = 10  # of a body; shorter ones are "See the base class." and the like
FORMAT = 1  # part of the cache's key: raise it when the same sources are to give other rows
KEPT = 4  # caches of other selections and of other environments; older ones are deleted


class Docstring(NamedTuple):
    """One docstring.

    Attributes:
        package: the name it is imported by, or "stdlib". where: ``json/decoder.py:JSONDecoder.decode``.
        summary: its first paragraph, in one line. body: what follows that.
    """

    package: str
    where: str
    summary: str
    body: str


def docstrings(
    packages: Sequence[str] | None = None,
    *,
    limit: int | None = None,
    min_texts: int = 100,
    roots: Sequence[Path] | None = None,
) -> Splits:
    """What a docstring says below its first paragraph, and the package that it documents.

    A text comes once: copies (letter case and white space apart) count for the first package, of the standard library
    and then the others by name. The sum of the text decides its part, 80 % to train on and 10 % each for validation
    and test, so a text stays in its part whatever else is installed.

    Args:
        packages: names they are imported by, and "stdlib"; None: the standard library and, of nine packages that
            Recurra needs for its tasks, those that are installed. :func:`installed_packages` gives all there are.
        limit: at most so many texts of a package, the first ones in the order of its files; None: all.
        min_texts: a package with fewer is left out.
        roots: folders that hold packages; None: where Python looks for them.

    Raises:
        UnknownNameError: no such package is installed. EmptyDataError: no package has so many texts.
        OptionError: `limit` or `min_texts` is not positive.

    Example:
        >>> splits = docstrings(["stdlib"], limit=100)
        >>> splits.train.labels[0], len(splits.train.texts) > len(splits.test.texts)
        ('stdlib', True)
    """
    if min_texts < 1:
        raise OptionError("min_texts must be positive", received=str(min_texts))
    found = read_docstrings(packages, limit=limit, roots=roots)
    count = Counter(one.package for one in found)
    kept = [one for one in found if count[one.package] >= min_texts]
    if not kept:
        raise EmptyDataError(
            f"no package has {min_texts} docstrings",
            received=", ".join(f"{name}: {n}" for name, n in count.most_common(5)) or "none at all",
            instead="fewer by min_texts, or more packages",
        )
    parts: dict[str, list[Docstring]] = {"train": [], "valid": [], "test": []}
    for one in kept:
        parts[part_of(one.body)].append(one)
    train, valid, test = (
        TextTable([one.body for one in rows], [one.package for one in rows], "docstrings") for rows in parts.values()
    )
    return splits_of(train, valid, test)


def installed_packages(*, roots: Sequence[Path] | None = None) -> list[str]:
    """The names that :func:`docstrings` takes.

    Example:
        >>> installed_packages()[0], "numpy" in installed_packages()
        ('stdlib', True)
    """
    return [STDLIB, *sorted(_packages(roots))]


def part_of(body: str) -> str:
    """The part of a text: "train", "valid" or "test", by its sum.

    Example:
        >>> part_of("Return a copy.") == part_of("return  a\\n copy.")
        True
    """
    tenth = int.from_bytes(_sum(body)[:8]) % 10
    return {0: "test", 1: "valid"}.get(tenth, "train")


def read_docstrings(
    packages: Sequence[str] | None = None, *, limit: int | None = None, roots: Sequence[Path] | None = None
) -> list[Docstring]:
    """All docstrings with a body of at least ten words, each once; read once, and kept in the cache.

    Files that this Python cannot parse, tests and vendored packages are left out. A bar shows the way if stderr is a
    terminal.

    Args:
        packages, limit, roots: see :func:`docstrings`.

    Raises:
        UnknownNameError: no such package is installed. OptionError: `limit` is not positive.
    """
    if limit is not None and limit < 1:
        raise OptionError("limit must be positive", received=str(limit))
    sources = _sources(packages, roots)
    cached = _cached(sources, limit)
    if cached.is_file():
        try:
            return [Docstring(**row) for row in read_json_lines(cached)]
        except (UndecodableFileError, ValueError, TypeError):
            cached.unlink()  # it holds nothing that the sources do not
    found = _parsed(sources, limit)
    write_json_lines(cached, (one._asdict() for one in found))
    others = sorted(cached.parent.glob("docstrings-*.jsonl.gz"), key=lambda file: -file.stat().st_mtime_ns)
    for old in others[KEPT:]:
        old.unlink(missing_ok=True)
    return found


def find_docstrings() -> Path | None:
    """The cache that ``docstrings()`` would read; None: it would parse the sources."""
    cached = _cached(_sources(None, None), None)
    return cached if cached.is_file() else None


class _Source(NamedTuple):
    """A file of a package, with its name in there and what tells another version of it."""

    name: str
    path: Path
    size: int
    changed: int


def _sources(packages: Sequence[str] | None, roots: Sequence[Path] | None) -> dict[str, list[_Source]]:
    """Files by package: the standard library, then packages by name; the files of each by name, too."""
    folders = {STDLIB: _stdlib(), **dict(sorted(_packages(roots).items()))}
    for name in packages or ():
        if name not in folders:
            raise UnknownNameError("installed package", name, folders)
    wanted = PACKAGES if packages is None else packages
    return {name: sorted(_files(folder)) for name, folder in folders.items() if name in wanted}


def _stdlib() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _packages(roots: Sequence[Path] | None) -> dict[str, Path]:
    places = [Path(place) for place in sys.path if place and Path(place) != _stdlib()] if roots is None else roots
    found: dict[str, Path] = {}
    for place in places:
        # Of two of a name Python imports the first. Metadata is in folders like "numpy-2.4.dist-info": no name of one.
        for folder in place.iterdir() if place.is_dir() else ():
            if folder.name.isidentifier() and (folder / "__init__.py").is_file():
                found.setdefault(folder.name, folder)
    return found


def _files(root: Path) -> Iterator[_Source]:
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in names:
            if name.endswith(".py"):
                path = Path(place, name)
                state = path.stat()
                yield _Source(path.relative_to(root).as_posix(), path, state.st_size, state.st_mtime_ns)


def _cached(sources: dict[str, list[_Source]], limit: int | None) -> Path:
    rows = [[name, str(file.path), file.size, file.changed] for name, files in sources.items() for file in files]
    key = hashlib.sha256(json.dumps([FORMAT, sys.version, MIN_WORDS, limit, rows]).encode()).hexdigest()
    return cache_folder() / f"docstrings-{key[:16]}.jsonl.gz"


def _parsed(sources: dict[str, list[_Source]], limit: int | None) -> list[Docstring]:
    seen: set[bytes] = set()
    found: list[Docstring] = []
    columns = (
        TextColumn("reading docstrings"),
        BarColumn(),
        TextColumn("{task.fields[package]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
        _without_collection(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of invalid escapes, in other people's code
        task = bar.add_task("", total=sum(file.size for files in sources.values() for file in files), package="")
        for package, files in sources.items():
            bar.update(task, package=package)
            room = limit  # None is room for all
            for file in files:
                for one in _of_file(package, file) if room != 0 else ():
                    mark = _sum(one.body)
                    if mark not in seen and room != 0:
                        seen.add(mark)
                        found.append(one)
                        room = room and room - 1
                bar.advance(task, file.size)
    return found


@contextmanager
def _without_collection() -> Iterator[None]:
    """Trees of source hold no cycles, and looking for some takes as long as parsing."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _of_file(package: str, file: _Source) -> Iterator[Docstring]:
    content = file.path.read_bytes()
    if b'"""' not in content and b"'''" not in content:
        return  # a text of several paragraphs stands in triple quotes; parsing costs a hundred times as much as this
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):
        return  # templates, and code of another version of Python
    for name, text in _texts(tree):
        summary, _, body = text.partition("\n\n")
        body = body.strip()
        if len(body.split()) >= MIN_WORDS and _is_text(text):
            yield Docstring(package, f"{file.name}:{name}".rstrip(":"), " ".join(summary.split()), body)


def _texts(tree: ast.Module) -> Iterator[tuple[str, str]]:
    # A stack, in the order of the file: chains of elif nest deeper than Python recurses.
    stack: list[tuple[str, ast.AST]] = [("", tree)]
    while stack:
        name, node = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not isinstance(node, ast.Module):
                name = f"{name}.{node.name}".lstrip(".")
            text = ast.get_docstring(node)
            if text:
                yield name, text
        # Only where statements are: expressions are nine tenths of a tree. That of a lambda is no list.
        inside = [getattr(node, field, None) for field in ("body", "handlers", "orelse", "finalbody", "cases")]
        stack.extend((name, child) for part in reversed(inside) if isinstance(part, list) for child in reversed(part))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # an escape has made half a character
        return False
    return True


def _sum(body: str) -> bytes:
    return hashlib.sha256(" ".join(body.split()).casefold().encode()).digest()
