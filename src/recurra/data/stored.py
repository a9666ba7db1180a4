"""Data longer than memory: texts and arrays in a temporary file, mapped, read where and when they are asked for."""

import errno
import functools
import os
import re
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, overload

import numpy as np
from typing_extensions import override

from recurra.errors import DataError

Array = np.ndarray[Any, np.dtype[Any]]  # (N,)
PIECE = 1 << 20  # bytes of a text that are looked at together
ROOMY = "/var/tmp"  # on a disk, where /tmp is memory on many systems


class Stored(Sequence[Array]):
    """Rows of unequal length and one dtype, one after the other in a file without a name.

    Memory holds 16 bytes a row. The file goes with the last view of it, or with the process, whatever ends that. It
    lies where ``TMPDIR`` says, else in ``/var/tmp``.

    Args:
        rows: each given as arrays ``(n,)`` that follow one another; all are taken once, one at a time.
        dtype: what they are kept as.

    Attributes:
        values: ``(N,)``, all rows one after the other, read-only. lengths: ``(rows,)``, int64.

    Raises:
        DataError: the disk is full.

    Example:
        >>> rows = Stored([[np.array([1, 2])], [np.array([3]), np.array([4, 5])]], np.uint8)
        >>> rows[1], rows.values, rows.lengths
        (array([3, 4, 5], dtype=uint8), array([1, 2, 3, 4, 5], dtype=uint8), array([2, 3]))
    """

    def __init__(self, rows: Iterable[Iterable[Array]], dtype: Any):
        ends, at = array("q"), 0
        try:
            with tempfile.TemporaryFile(dir=_folder()) as file:
                for row in rows:
                    for part in row:
                        file.write(np.ascontiguousarray(part, dtype).data)
                        at += len(part)
                    ends.append(at)
                file.flush()
                self.values: Array = np.asarray(np.memmap(file, dtype, "r")) if at else np.empty(0, dtype)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise  # it is of where the rows come from
            raise DataError(
                "there is no room for a copy of the data",
                received=f"{error.strerror} in {_folder() or tempfile.gettempdir()}, after {at:,} values",
                instead="TMPDIR=FOLDER in front of the command, a folder on a larger disk",
            ) from error
        self._ends = np.array(ends, dtype=np.int64)
        self.lengths = np.diff(self._ends, prepend=0)

    @override
    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, i: int) -> Array: ...
    @overload
    def __getitem__(self, i: slice) -> list[Array]: ...
    @override
    def __getitem__(self, i: int | slice) -> Array | list[Array]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        end = self._ends[i]
        return self.values[end - self.lengths[i] : end]


class Text:
    """One text of any length, kept as :class:`Stored` keeps rows.

    Args:
        utf8: ``(bytes,)``, uint8: the text in UTF-8.

    Example:
        >>> text = Text.of(["a naïve ", "text\\n", "in two lines\\n"])
        >>> text.characters, text.offset(5), [*text.pieces()], str(text.part(14))
        (26, 6, ['a naïve text\\nin two lines\\n'], 'in two lines\\n')
    """

    def __init__(self, utf8: Array):
        self.utf8 = utf8

    @classmethod
    def of(cls, pieces: Iterable[str]) -> Self:
        """What the pieces, taken once, come to one after the other."""
        return cls(Stored([map(_bytes, pieces)], np.uint8)[0])

    @functools.cached_property
    def characters(self) -> int:
        """How many there are."""
        return sum(int(_begins(block).sum()) for block in self._blocks())

    @override
    def __str__(self) -> str:
        return str(self.utf8.tobytes(), "utf-8", "surrogatepass")

    def pieces(self) -> Iterator[str]:
        """The text cut into some mebibytes each, where a line ends; in a longer line before a word.

        Words, characters and subwords of the pieces are those of the whole. Only where a mebibyte holds no white space
        a piece ends between two characters.
        """
        at = 0
        while at < len(self.utf8):
            block = self.utf8[at : at + PIECE].tobytes()
            if at + len(block) < len(self.utf8):
                block = block[: _cut(block)]
            at += len(block)
            yield str(block, "utf-8", "surrogatepass")

    def is_blank(self) -> bool:
        """Whether there is nothing but white space."""
        return not any(piece.strip() for piece in self.pieces())

    def part(self, begin: int, end: int | None = None) -> "Text":
        """The text between two offsets in bytes."""
        return Text(self.utf8[begin:end])

    def offset(self, characters: int) -> int:
        """The bytes in front of which so many characters lie."""
        at = 0
        for block in self._blocks():
            begins = _begins(block)
            count = int(begins.sum())
            if characters < count:
                return at + int(np.flatnonzero(begins)[characters])
            characters, at = characters - count, at + len(block)
        return at

    def line_end(self, begin: int) -> int:
        """The bytes up to and with the first line end at `begin` or behind it; 0: there is none."""
        for at in range(begin, len(self.utf8), PIECE):
            found = self.utf8[at : at + PIECE].tobytes().find(b"\n")
            if found >= 0:
                return at + found + 1
        return 0

    def _blocks(self) -> Iterator[Array]:
        return (self.utf8[at : at + PIECE] for at in range(0, len(self.utf8), PIECE))


class Texts(Sequence[str]):
    """Texts kept as :class:`Stored` keeps rows; equal to a list of the same.

    Args:
        texts: each a string, or an iterable of pieces that follow one another; all are taken once, one at a time.

    Example:
        >>> texts = Texts(f"text {i}" for i in range(1000))
        >>> len(texts), texts[-1], texts[3:5], texts.select([7, 1]) == ["text 7", "text 1"]
        (1000, 'text 999', ['text 3', 'text 4'], True)
    """

    def __init__(self, texts: Iterable[str | Iterable[str]]):
        pieces = ([text] if isinstance(text, str) else text for text in texts)
        self._utf8: Sequence[Array] = Stored((map(_bytes, text) for text in pieces), np.uint8)
        self._rows: Any = range(len(self._utf8))

    @override
    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    @override
    def __getitem__(self, i: int | slice) -> str | list[str]:
        return [str(self.text(k)) for k in range(*i.indices(len(self)))] if isinstance(i, slice) else str(self.text(i))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list | Texts) and len(self) == len(other) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]

    @property
    def characters(self) -> int:
        """Of all texts together."""
        return sum(self.text(i).characters for i in range(len(self)))

    def text(self, i: int) -> Text:
        """One of them, not read yet."""
        return Text(self._utf8[self._rows[i]])

    def select(self, rows: Any) -> "Texts":
        """Those of these numbers, in their order; nothing is copied."""
        found = object.__new__(Texts)
        found._utf8, found._rows = self._utf8, np.asarray(self._rows)[rows]
        return found


def utf8_of(texts: Iterable[Any]) -> Iterator[Any]:
    """The bytes of each text, in UTF-8, without a copy where they are stored.

    Example:
        >>> [bytes(utf8) for utf8 in utf8_of(["é"])], [bytes(utf8) for utf8 in utf8_of(Texts(["é"]))]
        ([b'\\xc3\\xa9'], [b'\\xc3\\xa9'])
    """
    if isinstance(texts, Texts):
        return (texts.text(i).utf8.data for i in range(len(texts)))
    return (t.utf8.data if isinstance(t, Text) else str(t).encode("utf-8", "surrogatepass") for t in texts)


def _folder() -> str | None:
    chosen = any(name in os.environ for name in ("TMPDIR", "TEMP", "TMP"))
    return ROOMY if not chosen and os.access(ROOMY, os.W_OK) else None


def _bytes(text: str) -> Array:
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)


def _begins(utf8: Array) -> Array:
    # The other bytes of a character are 10xxxxxx.
    return (utf8 & 0xC0) != 0x80  # type: ignore[no-any-return]


def _cut(block: bytes) -> int:
    """Where a block that goes on may end."""
    line = block.rfind(b"\n") + 1
    if line:
        return line
    # A space goes with the word behind it, as byte-level subwords have it.
    if word := re.match(rb"(?s).+(?= \S)", block):
        return word.end()
    return len(block) - next(k for k in range(1, 5) if block[-k] & 0xC0 != 0x80)
