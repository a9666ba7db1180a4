"""What a checkpoint must be before a training takes its state: like one that this training would write.

Lightning and torch put the state of loops and optimizers in place as they find it, and would fail far from the cause.
"""

import math
import re
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurra.errors import RunFolderError
from recurra.train.randomness import restore_random_states, seeded

OLDEST = (2, 4)  # of Lightning; it would change the states of older ones, each in its own way


def require_resumable(checkpoint: Mapping[str, Any], like: Mapping[str, Any], monitor: str | None) -> None:
    """Hold a checkpoint against one of the same training that has not begun.

    Args:
        checkpoint: what was read.
        like: ``state_dict``, ``loops``, ``optimizer_states`` (with ``state`` of all weights) and ``lr_schedulers``.
        monitor: the figure that each epoch must have.

    Raises:
        RunFolderError: something is missing, or is of another type, shape or size; the message says where.
    """
    _require_weights(checkpoint.get("state_dict"), like["state_dict"])
    found = dict(checkpoint)
    version, epoch = found.pop("pytorch-lightning_version", None), found.pop("epoch", None)
    numbers = re.match(r"(\d{1,4})\.(\d{1,4})", version) if isinstance(version, str) and len(version) < 40 else None
    if not numbers or (int(numbers[1]), int(numbers[2])) < OLDEST:
        raise _unlike("pytorch-lightning_version", version)
    if type(epoch) is not int or type(found.pop("global_step", None)) is not int:
        raise _unlike("epoch", epoch)
    callbacks = found.pop("callbacks", None)
    if not isinstance(callbacks, dict) or callbacks.keys() != {"KeepEpochs"}:
        raise _unlike("callbacks", callbacks)
    _require_kept(callbacks["KeepEpochs"], epoch, monitor)
    for where, value in unlike(found, _with_states_of(found, like)):
        raise _unlike(where, value)


def _require_weights(found: Any, like: Mapping[str, Tensor]) -> None:
    """Weights of other names, shapes or dtypes are of another network, which is said before anything else."""
    shapes = {k: _form(v) for k, v in found.items()} if isinstance(found, dict) else {}
    expected = {k: _form(v) for k, v in like.items()}
    differing = [k for k in {**shapes, **expected} if shapes.get(k) != expected.get(k)]
    if differing:
        names = sorted(differing, key=str)[:4]
        said = [", ".join(f"{reprlib.repr(k)}: {s.get(k, 'none')}" for k in names) for s in (shapes, expected)]
        raise RunFolderError("the checkpoint is of another network", received=said[0], instead=said[1])


def unlike(found: Any, like: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Where `found` has another type, key, length, shape or dtype than `like`, a negative counter, or a NaN.

    Example:
        >>> [*unlike({"a": [1, 2.0], "b": -1}, {"a": [1, 2], "b": 0})]
        [('a.1', 2.0), ('b', -1)]
    """
    if type(found) is not type(like):
        yield where, found
    elif isinstance(like, Mapping):
        for key in sorted(found.keys() ^ like.keys(), key=str):
            yield f"{where}.{str(key)[:40]}".strip("."), found.get(key)
        for key in (k for k in like if k in found):
            yield from unlike(found[key], like[key], f"{where}.{key}".strip("."))
    elif isinstance(like, list | tuple):
        if len(found) != len(like):
            yield where, found
        for i, (a, b) in enumerate(zip(found, like, strict=False)):
            yield from unlike(a, b, f"{where}.{i}".strip("."))
    elif isinstance(like, Tensor):
        if _form(found) != _form(like) or not bool(torch.isfinite(found).all()):
            yield where, found
    elif isinstance(like, int | float) and not 0 <= found < math.inf:
        yield where, found


def _with_states_of(found: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """`like` as it is after some steps: a weight that nothing has read has no state.

    Raises:
        RunFolderError: an optimizer has other settings.
    """
    optimizers = found.get("optimizer_states")
    if not isinstance(optimizers, list) or not all(isinstance(o, dict) and "state" in o for o in optimizers):
        return dict(like)
    expected = list(like["optimizer_states"])
    for i, (saved, fresh) in enumerate(zip(optimizers, like["optimizer_states"], strict=False)):
        read = saved["state"] if isinstance(saved["state"], dict) else {}
        states = {number: state for number, state in fresh["state"].items() if number in read}
        expected[i] = {**fresh, "state": states}
        groups = saved.get("param_groups")
        if isinstance(groups, list) and all(isinstance(g, dict) for g in groups):
            for group, settings in zip(groups, fresh["param_groups"], strict=False):
                for name in sorted(settings.keys() - {"lr"}):
                    if name in group and repr(group[name]) != repr(settings[name]):  # a tensor's == is no bool
                        raise _unlike(f"optimizer_states.param_groups.{name}", group[name])
    return {**like, "optimizer_states": expected}


def _require_kept(kept: Any, epoch: int, monitor: str | None) -> None:
    """What KeepEpochs keeps: figures of each epoch, which was the best, and the random states of each process."""
    if not isinstance(kept, dict):
        raise _unlike("callbacks.KeepEpochs", kept)
    history, best, others = kept.get("history"), kept.get("best_epoch"), kept.get("others", [])
    needed = {"epoch", "loss", "learning_rate", "seconds", *((monitor, "valid_loss") if monitor else ())}
    if (
        not isinstance(history, list)
        or len(history) != epoch + 1
        or not all(isinstance(e, dict) and needed <= e.keys() == history[0].keys() for e in history)
        or not all(type(k) is str and type(v) in (int, float) for e in history for k, v in e.items())
    ):
        raise _unlike("history", history)
    if type(best) is not int or not 1 <= best <= len(history):
        raise _unlike("best_epoch", best)
    if not isinstance(others, list):
        raise _unlike("others", others)
    with seeded(0):  # the caller's states come back after it
        for states in (kept.get("random"), *others):
            try:
                restore_random_states(states)
            except (TypeError, ValueError, KeyError, IndexError, OverflowError, RuntimeError) as error:
                raise _unlike("random", error) from error


def _form(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} of {value.dtype}"
    return f"{value.shape} of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__


def _unlike(where: str, value: Any) -> RunFolderError:
    form = _form(value) if isinstance(value, Tensor | np.ndarray) else reprlib.repr(value)
    return RunFolderError(
        f"a checkpoint does not fit this training: {where}",
        received=form,
        instead="the versions that wrote it, or train again with --overwrite",
    )
