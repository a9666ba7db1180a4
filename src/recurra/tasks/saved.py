"""A task as a run folder, and back: what all of them share, and what a TextClassifier has beside it."""

import dataclasses
import reprlib
import sys
from collections.abc import Iterable
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from tokenizers import Tokenizer

from recurra.cells import CELLS
from recurra.data import PAD, PAD_ID, UNK, UNK_ID, word_tokenizer
from recurra.errors import OptionError, RunFolderError, UnknownNameError
from recurra.train.files import write_atomically
from recurra.train.run_folder import FINISHED, NEW, TRAINING, RunFolder
from recurra.train.untrusted import AGAIN, field, parse_json, read_json

if TYPE_CHECKING:
    from recurra.tasks.classify import TextClassifier

Found = TypeVar("Found", bound="TextClassifier")
# What a config says beside what decides the weights -> its type.
ABOUT = {"seed": int, "data": dict, "notes": dict, "versions": dict, "machine": dict, "seconds": float}
# A run with more is refused unread.
LARGEST_LAYERS = 64  # each costs time to lay out, even without memory
LONGEST_SETTING = 1000  # characters, or numbers in a list
LARGEST_CLASSES = 2**26  # characters: of the array of labels, in which each takes as much room as the longest


def write_config(classifier: "TextClassifier", folder: RunFolder) -> None:
    """Write ``tokenizer.json`` and ``config.json``, of a run that begins or of one that is finished."""
    write_atomically(folder.tokenizer, classifier.tokenizer_.to_str())
    finished = folder.weights.exists()
    folder.write_config(
        {
            "task": classifier.task,
            "state": FINISHED if finished else TRAINING,
            "settings": classifier.settings(),
            "classes": classifier.classes_.tolist(),
            **classifier.about_,
        }
    )


def begin(task: Any, folder: RunFolder, *, resume: bool, overwrite: bool) -> str:
    """Make the folder ready for a training, and say where its run stands: NEW, TRAINING or FINISHED.

    Args:
        task: an estimator with ``task`` (its name), ``settings()``, ``seed_``, ``about_``, ``schedule``, ``progress``
            and ``FREE``, names of settings that decide nothing about epochs that are done.

    Raises:
        RunFolderError: the folder holds something else, or a run that is to be kept, or that cannot be resumed.
    """
    if resume and overwrite:
        raise RunFolderError("--resume goes on with a run and --overwrite discards it: give one of them")
    state = _state_of(task, folder) if resume and folder.config.exists() else NEW
    if state == FINISHED or (state == TRAINING and folder.last.exists()):
        folder.tidy()
        return state
    folder.prepare(overwrite=overwrite or resume)  # to resume, there is nothing to lose: no epoch has ended
    if resume and task.progress:
        print(f"no epoch of a run in {folder.path} has ended: training begins anew", file=sys.stderr)
    return NEW


def _state_of(task: Any, folder: RunFolder) -> str:
    """Where a run that is to be resumed stands.

    Raises:
        RunFolderError: they differ, so that resuming could not give the weights of an unbroken run.
    """
    config = folder.read_config(task.task)
    if config.get("state") == NEW:
        return NEW
    told = {**task.settings(), "seed": task.seed_, "data": task.about_["data"]["fingerprint"]}
    settings, data = field(config, "settings", dict, folder.config), field(config, "data", dict, folder.config)
    kept = {**settings, "seed": config.get("seed"), "data": data.get("fingerprint")}
    # Where it runs and how often it may go on decide nothing about the epochs that are done.
    free = {"accelerator", "patience", *({"max_epochs"} if task.schedule == "constant" else ()), *task.FREE}
    differing = sorted(k for k in told.keys() | kept.keys() if k not in free and told.get(k) != kept.get(k))
    if differing:
        raise RunFolderError(
            f"the run in {folder.path} cannot be resumed: it was begun with other settings or data",
            received=", ".join(f"{k}={_short(told.get(k))}" for k in differing),
            instead=", ".join(f"{k}={_short(kept.get(k))}" for k in differing) + "; or --overwrite to begin anew",
        )
    return FINISHED if config.get("state") == FINISHED else TRAINING


def tokenizer_of(folder: RunFolder) -> Tokenizer:
    """Read ``tokenizer.json``.

    Raises:
        RunFolderError: it is damaged, or no vocabulary of words numbered from 0, or more than a vocabulary.
    """
    document = read_json(folder.tokenizer)
    words = field(field(document, "model", dict, folder.tokenizer), "vocab", dict, folder.tokenizer)
    if (
        {type(number) for number in words.values()} != {int}
        or sorted(words.values()) != [*range(len(words))]
        or (words.get(PAD), words.get(UNK)) != (PAD_ID, UNK_ID)
    ):
        raise RunFolderError(f"{folder.tokenizer} is damaged: no vocabulary of words numbered from 0", instead=AGAIN)
    try:
        tokenizer = word_tokenizer(words)
    except TypeError as error:  # JSON can write half of a character, which is no text
        said = str(error)[:200]
        raise RunFolderError(f"{folder.tokenizer} is damaged: a word", received=said, instead=AGAIN) from error
    # Only the words are taken from the file: a pattern in it could take forever, and padding in it all memory.
    if parse_json(tokenizer.to_str()) != document:
        raise RunFolderError(
            f"{folder.tokenizer} is not how this version of recurra reads words",
            received=", ".join(f"{k}={reprlib.repr(v)}" for k, v in document.items() if k != "model")[:200],
            instead="the version that wrote it, or train again with --overwrite",
        )
    return tokenizer


def load(cls: "type[Found]", folder: RunFolder, cells: Iterable[Any]) -> "Found":
    """Read a run folder: the sizes in its config are held against its weights before any memory is taken for them."""
    config = folder.read_config(cls.task)
    folder.require_finished(config)
    classes = _classes(config, folder)
    classifier: Found = estimator_of(cls, folder, config, cells)
    classifier.classes_ = classes
    classifier.tokenizer_ = tokenizer_of(folder)
    give_weights(classifier, folder, config)
    return classifier


def estimator_of(cls: "type[Any]", folder: RunFolder, config: dict[str, Any], cells: Iterable[Any]) -> Any:
    """An estimator with the settings of a config, and its seed; `cls` is a dataclass of settings.

    Raises:
        RunFolderError: a setting is unknown, or of a size that none has.
        UnknownNameError: the run's cell is neither built in nor among `cells`.
    """
    settings = field(config, "settings", dict, folder.config)
    known = {f.name for f in dataclasses.fields(cls)}
    if not settings.keys() <= known:
        raise RunFolderError(
            f"{folder.config} has settings that this version of recurra does not know",
            received=reprlib.repr(sorted(settings.keys() - known)),
            instead="a version of recurra that reads it",
        )
    for name, value in settings.items():
        if isinstance(value, dict) or (isinstance(value, str | list) and len(value) > LONGEST_SETTING):
            raise RunFolderError(
                f"{folder.config} is damaged: no setting is like its {name!r}",
                received=reprlib.repr(value),
                instead=AGAIN,
            )
    widths = settings.get("hidden_size")
    layers = len(widths) if isinstance(widths, list) else settings.get("num_layers")
    if not isinstance(layers, int) or layers > LARGEST_LAYERS:
        raise RunFolderError(
            f"{folder.config} is damaged: its number of layers", received=reprlib.repr(layers), instead=AGAIN
        )
    name = field(config["settings"], "cell", str, folder.config)
    found = cls(**{**settings, "cell": _cell(name, cells), "random_state": config.get("seed")})
    found.seed_ = field(config, "seed", int, folder.config)
    return found


def give_weights(task: Any, folder: RunFolder, config: dict[str, Any]) -> None:
    """Give an estimator its network, with the weights of the folder, its figures, and what is told about it.

    Args:
        task: with what ``task._network()`` needs.

    Raises:
        RunFolderError: a setting is out of range, the weights do not fit, or the figures are damaged.
    """
    try:
        with torch.device("meta"):  # shapes without memory
            task._checked()
            network = task._network()
    except (OptionError, UnknownNameError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        said = str(error)[:500]  # torch adds its stack
        raise RunFolderError(f"{folder.config} is damaged: a setting", received=said, instead=AGAIN) from error
    weights = folder.read_weights(network.state_dict())
    network.load_state_dict(weights, assign=True)
    task.network_ = network.requires_grad_().eval()
    task.history_, task.best_epoch_ = _history(folder)
    task.about_ = {k: field(config, k, kind, folder.config) for k, kind in ABOUT.items() if k in config}


def _history(folder: RunFolder) -> tuple[list[Any], int]:
    metrics = read_json(folder.metrics)
    history = field(metrics, "history", list, folder.metrics)
    best = field(metrics, "best_epoch", int, folder.metrics)
    figures = (value for epoch in history for value in (epoch.values() if isinstance(epoch, dict) else [epoch]))
    if not all(type(value) in (int, float, NoneType) for value in figures) or not 1 <= best <= len(history):
        raise RunFolderError(
            f"{folder.metrics} is damaged: 'history' must be the figures of each epoch, 'best_epoch' one of them",
            received=f"{reprlib.repr(history)}, {reprlib.repr(best)}",
            instead=AGAIN,
        )
    return history, best


def _classes(config: dict[str, Any], folder: RunFolder) -> np.ndarray[Any, np.dtype[Any]]:
    classes = field(config, "classes", list, folder.config)
    kinds = {type(c) for c in classes}
    if (
        len(classes) < 2
        or len(kinds) != 1
        or not kinds <= {str, int, bool}
        or len(set(classes)) != len(classes)
        or (kinds == {int} and not all(-(2**63) <= c < 2**63 for c in classes))
        or (kinds == {str} and len(classes) * max(map(len, classes)) > LARGEST_CLASSES)
    ):
        raise RunFolderError(
            f"{folder.config} is damaged: 'classes' must be several", received=reprlib.repr(classes), instead=AGAIN
        )
    return np.array(classes)


def _cell(name: str, cells: Iterable[Any]) -> Any:
    own = {getattr(cell, "__name__", ""): cell for cell in cells}
    if name not in own and name not in CELLS:
        raise UnknownNameError("cell (give your own by load(path, cells=[…]))", name, [*CELLS, *own])
    return own.get(name, name)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 24 else text[:12] + "…" + text[-4:]
