"""Checkpoints as one safetensors file each, with the rest of the state as JSON in its header."""

import json
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor
from typing_extensions import override

from recurra.errors import RunFolderError
from recurra.train import ranks
from recurra.train.files import write_atomically
from recurra.train.tree import decode, encode
from recurra.train.untrusted import AGAIN, LARGEST_WEIGHTS, open_tensors, parse_json

FORMAT = 1
KEY = "recurra"  # in the header's metadata


def save(state: dict[str, Any], path: Path) -> None:
    """Write a nested state to `path`, whole or not at all.

    One file, so that no crash can leave tensors of one moment beside counters of another.

    Raises:
        UnsavableStateError: the state holds something that is neither a number, a string, a container nor a tensor.
    """
    tensors: dict[str, Tensor] = {}
    document = {"format": FORMAT, "state": encode(state, tensors)}
    metadata = {KEY: json.dumps(document, allow_nan=False)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def load(path: Path, largest: int = 3 * LARGEST_WEIGHTS) -> dict[str, Any]:
    """Read what :func:`save` wrote; tensors arrive on the CPU.

    The header is read first, and safetensors holds every size in it against the file's before anything is allocated.
    Nothing is unpickled and nothing imported.

    Args:
        path: the file. largest: bytes that its tensors may take; Adam keeps two numbers beside each weight.

    Raises:
        RunFolderError: there is no such file, or it is damaged, truncated, of a later format, or no checkpoint.
    """
    if not path.exists():
        raise RunFolderError(
            "there is no checkpoint to resume from", received=str(path), instead="train without --resume"
        )
    try:
        with open_tensors(path, largest) as file:
            document = parse_json((file.metadata() or {})[KEY])
            if document["format"] != FORMAT:
                raise RunFolderError(
                    f"a checkpoint of format {reprlib.repr(document['format'])}: this version reads format {FORMAT}",
                    received=str(path),
                    instead="resume with the version of recurra that wrote it",
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dict)
            state = decode(document["state"], tensors)
    except (KeyError, TypeError) as error:  # what else may be wrong with a file, open_tensors says
        raise RunFolderError(
            f"{path} is damaged: no checkpoint", received=reprlib.repr(error), instead=AGAIN
        ) from error
    if not isinstance(state, dict):
        raise RunFolderError("a checkpoint is damaged: it holds no state", received=str(path))
    return state


class SafeCheckpointIO(CheckpointIO):
    """Lightning's checkpoints through :func:`save` and :func:`load`.

    Args:
        check: called with what was read, before Lightning takes it; it raises where that is not to be used.
        largest: bytes that a checkpoint's tensors may take.
    """

    def __init__(self, check: Callable[[dict[str, Any]], None], largest: int):
        self.check, self.largest = check, largest

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a trainer's state; `storage_options` must be None, for there are none."""
        if storage_options is not None:
            raise TypeError(f"SafeCheckpointIO takes no storage options; received {storage_options!r}")
        save(checkpoint, Path(path))

    @override
    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a trainer's state onto the CPU: Lightning moves it to the device. Nothing is ever unpickled."""
        found = ranks.by_first(lambda: load(Path(path), self.largest))
        self.check(found)
        return found

    @override
    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)
