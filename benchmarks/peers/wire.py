"""Messages over a pipe: a header in JSON and arrays as they lie in memory. Known to both sides, whatever they run."""

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

_LENGTH = struct.Struct("<Q")


def send(stream: BinaryIO, head: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> None:
    """Write one message."""
    given = {name: np.ascontiguousarray(a) for name, a in (arrays or {}).items()}
    kinds = {name: [a.dtype.str, list(np.shape((arrays or {})[name]))] for name, a in given.items()}
    text = json.dumps({**head, "arrays": kinds}).encode()
    _write(stream, _LENGTH.pack(len(text)) + text)
    for a in given.values():
        _write(stream, a.reshape(-1).view(np.uint8).data)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read one message.

    Raises:
        EOFError: the other side is gone.
    """
    head = json.loads(bytes(_read(stream, _LENGTH.unpack(_read(stream, _LENGTH.size))[0])))
    arrays = {}
    for name, (dtype, shape) in head.pop("arrays").items():
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        arrays[name] = np.frombuffer(_read(stream, count), dtype).reshape(shape)
    return head, arrays


def _write(stream: BinaryIO, data: Any) -> None:
    view = memoryview(data)
    while len(view):  # a pipe without a buffer may take less than it is given
        view = view[stream.write(view) :]


def _read(stream: BinaryIO, count: int) -> bytearray:
    buffer = bytearray(count)
    view, done = memoryview(buffer), 0
    while done < count:
        got = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError("the other side is gone")
        done += got
    return buffer
