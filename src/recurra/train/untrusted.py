"""Files that may be a stranger's: plain ones of a bounded size, and JSON that means one thing only.

What a file says is held against what is expected of it before memory is taken for it. Nothing is unpickled, nothing is
imported or called by a name found in a file.
"""

import json
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from recurra.errors import RunFolderError

LARGEST_JSON = 64 * 2**20  # bytes; a vocabulary of 100,000 words takes about 3 MiB
MOST_VALUES = 2_000_000  # in one JSON; each takes up to 250 bytes of memory, and two of the file
LARGEST_WEIGHTS = 4 * 2**30  # bytes; a thousand million weights of float32
AGAIN = "train again with --overwrite, or restore the folder from a copy"


def require_plain(path: Path, largest: int) -> int:
    """The size of a file that can be read: one that is there, plain, in its own folder, and not too large.

    Raises:
        RunFolderError: it is none of these.
    """
    if not path.exists():
        raise RunFolderError(f"a file of the run is missing: {path.name}", received=str(path.parent), instead=AGAIN)
    if not path.is_file():  # reading from a pipe would wait forever
        raise RunFolderError(f"{path} is no plain file", instead=AGAIN)
    if path.resolve().parent != path.parent.resolve():
        raise RunFolderError(f"{path} leads out of its folder", received=str(path.resolve()), instead="the file itself")
    size = path.stat().st_size
    if size > largest:
        raise RunFolderError(f"{path} is larger than any run's", received=f"{size} bytes", instead="look who made it")
    return size


def require_utf8(path: Path) -> None:
    """Raise RunFolderError where a path is not valid UTF-8, which safetensors opens no other than."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise RunFolderError(
            "the path of a run must be valid UTF-8", received=ascii(str(path)), instead="a folder of another name"
        ) from error


def parse_json(data: bytes | str) -> Any:
    """Read JSON that leaves no room for two readings: no key twice, no NaN, and not more values than any run has.

    Raises:
        ValueError: it is not JSON, or not of that kind. RecursionError: it is nested too deeply.

    Example:
        >>> parse_json('{"seed": 1, "seed": 2}')
        Traceback (most recent call last):
        ValueError: the key 'seed' is there twice
    """
    written = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if sum(written.count(mark) for mark in (b"[", b"{", b",")) > MOST_VALUES:
        raise ValueError(f"it holds more than {MOST_VALUES:,} values")
    return json.loads(data, object_pairs_hook=_once, parse_constant=_no_number)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {reprlib.repr(key)} is there twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RunFolderError: the file is missing, no plain one, larger than any run's, not UTF-8, or not an object.
    """
    require_plain(path, LARGEST_JSON)
    try:
        document = parse_json(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{path} is damaged or truncated: no JSON", received=str(error), instead=AGAIN) from error
    if not isinstance(document, dict):
        raise RunFolderError(f"{path} is damaged: no JSON object", received=type(document).__name__, instead=AGAIN)
    return document


def field(document: Mapping[str, Any], name: str, kind: type | tuple[type, ...], path: Path) -> Any:
    """An entry of a JSON object, of the type it must have.

    Raises:
        RunFolderError: it is missing or of another type.
    """
    value = document.get(name)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in kinds:
        raise RunFolderError(
            f"{path} is damaged: {name!r} must be {' or '.join(k.__name__ for k in kinds)}",
            received=reprlib.repr(value) if name in document else "nothing",
            instead=AGAIN,
        )
    return value


@contextmanager
def open_tensors(path: Path, largest: int) -> Iterator[Any]:
    """A safetensors file to read, its header checked: sizes and offsets are those of the file.

    Args:
        path: the file. largest: bytes that its tensors may take.

    Raises:
        RunFolderError: it is missing, no plain file, larger, damaged or truncated.
    """
    require_utf8(path)
    size = require_plain(path, largest + LARGEST_JSON)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(LARGEST_JSON, size - 8):
                raise ValueError(f"a header of {length} bytes, in a file of {size}")
            parse_json(file.read(length))  # safetensors takes the last of several entries of one name
        with safe_open(path, "pt") as tensors:
            yield tensors
    except (SafetensorError, ValueError, RecursionError) as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"{path} is damaged or truncated", received=str(error), instead=AGAIN) from error
