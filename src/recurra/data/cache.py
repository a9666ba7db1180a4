"""Where data that was downloaded or parsed is kept, and how it is written: whole, or not at all."""

import gzip
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from recurra.data.records import read_text


def cache_folder() -> Path:
    """``$RECURRA_CACHE``, or the folder that the system keeps for caches."""
    import pooch

    given = os.environ.get("RECURRA_CACHE")
    return Path(given) if given else Path(pooch.os_cache("recurra"))


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as one JSON object a line, packed; the same rows give the same bytes."""
    with _atomically(path) as raw, gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows that :func:`write_json_lines` wrote.

    Raises:
        UndecodableFileError: the file is damaged.
    """
    return [json.loads(line) for line in read_text(path).split("\n") if line]


@contextmanager
def _atomically(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with new.open("xb") as file:  # not mkstemp: who may read it is for the umask to say
            yield file
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
