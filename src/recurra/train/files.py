"""Files written whole or not at all."""

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from recurra.errors import OptionError

UNFINISHED = ".recurra-tmp"  # ends the name of a file that is being written


def require_place(path: Path, what: str, kinds: Sequence[str]) -> None:
    """Raise OptionError where a file cannot be written there: of another kind, by its name, or in no folder."""
    if path.suffix.lower() not in kinds:
        raise OptionError(f"{what} is written as {' or '.join(kinds)}", received=str(path))
    if not path.parent.is_dir():
        raise OptionError(f"{what} is written into a folder that is there", received=str(path.parent))


def write_atomically(path: Path, content: bytes | str) -> None:
    """Put `content` at `path` so that a reader, or a crash at any moment, meets the old file or the new one.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; the old file is untouched.
    """
    # Bytes of a path that are no characters become "\\udcff", from which JSON makes them again.
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    with new.open("xb") as file:  # not mkstemp: who may read it is for the umask to say
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    if os.name == "posix":
        # The new name is in the folder, so the folder must reach the disk too.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_strays(path: Path) -> None:
    """Remove what :func:`write_atomically` leaves beside `path` when the process is killed in it."""
    for stray in path.parent.glob(f".{path.name}.*{UNFINISHED}"):
        stray.unlink(missing_ok=True)


def is_stray(path: Path) -> bool:
    """Whether a file is what :func:`remove_strays` removes."""
    return path.name.startswith(".") and path.name.endswith(UNFINISHED)


def sha256_of(path: Path) -> str:
    """The SHA-256 sum of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
