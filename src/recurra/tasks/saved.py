"""A task's model as a run folder, and back."""

import dataclasses
import reprlib
import sys
from collections.abc import Iterable
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from recurra.cells import CELLS
from recurra.errors import OptionError, RunFolderError, UnknownNameError
from recurra.train.files import write_atomically
from recurra.train.run_folder import FINISHED, NEW, TRAINING, RunFolder
from recurra.train.untrusted import AGAIN, LARGEST_JSON, LARGEST_WEIGHTS, field, parse_json, read_json

if TYPE_CHECKING:
    from recurra.tasks.trained import Trained

Found = TypeVar("Found", bound="Trained")
# What a config says beside what decides the weights -> its type.
ABOUT = {"seed": int, "data": dict, "notes": dict, "versions": dict, "machine": dict, "seconds": float}
# A run with more is refused unread.
LARGEST_LAYERS = 64  # each costs time to lay out, even without memory
LONGEST_SETTING = 1000  # characters, or numbers in a list


def write_config(model: "Trained", folder: RunFolder) -> None:
    """Write ``tokenizer.json`` and ``config.json``, of a run that begins or of one that is finished."""
    write_atomically(folder.tokenizer, model.tokenizer_.to_str())
    finished = folder.weights.exists()
    folder.write_config(
        {
            "task": model.task,
            "state": FINISHED if finished else TRAINING,
            "settings": model.settings_,
            **model._learnt(),
            **model.about_,
        }
    )


def require_weights(network: torch.nn.Module) -> None:
    """Raise OptionError where a network has more weights than a run may have."""
    size = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    if size > LARGEST_WEIGHTS:
        raise OptionError(
            "the network has more weights than a run may have",
            received=f"{size / 2**30:,.1f} GiB",
            instead=f"at most {LARGEST_WEIGHTS / 2**30:g} GiB: a smaller hidden_size, fewer layers, or fewer words",
        )


def require_readable(tokenizer: str, network: torch.nn.Module) -> None:
    """Raise OptionError where the run that is to be trained could not be read again."""
    require_weights(network)
    try:
        size = len(tokenizer.encode("utf-8", "backslashreplace"))
        if size > LARGEST_JSON:
            raise ValueError(f"{size:,} bytes")
        parse_json(tokenizer)
    except ValueError as error:
        raise OptionError(
            "the vocabulary is larger than that of any run", received=str(error), instead="a smaller vocab_size"
        ) from error


def begin(model: "Trained", folder: RunFolder, *, resume: bool, overwrite: bool) -> str:
    """Say where the run of a folder stands: NEW, where one may begin, TRAINING or FINISHED.

    Raises:
        RunFolderError: the folder holds something else, or a run that is to be kept, or that cannot be resumed.
    """
    if resume and overwrite:
        raise RunFolderError("--resume goes on with a run and --overwrite discards it: give one of them")
    state = _state_of(model, folder) if resume and folder.config.exists() else NEW
    if state == FINISHED or (state == TRAINING and folder.last.exists()):
        folder.tidy()
        return state
    folder.require_free(overwrite=overwrite or resume)  # to resume, there is nothing to lose: no epoch has ended
    if resume and model.progress:
        print(f"no epoch of a run in {folder.path} has ended: training begins anew", file=sys.stderr)
    return NEW


def _state_of(model: "Trained", folder: RunFolder) -> str:
    """Where a run that is to be resumed stands.

    Raises:
        RunFolderError: they differ, so that resuming could not give the weights of an unbroken run.
    """
    config = folder.read_config(model.task)
    if config.get("state") == NEW:
        return NEW
    told = {**model.settings(), "seed": model.seed_, "data": model.about_["data"]["fingerprint"]}
    settings, data = field(config, "settings", dict, folder.config), field(config, "data", dict, folder.config)
    # A setting that the run's version did not have is what it was then: the default.
    settings = {f.name: f.default for f in dataclasses.fields(model) if f.name in told} | settings
    kept = {**settings, "seed": config.get("seed"), "data": data.get("fingerprint")}
    # Where it runs and how often it may go on decide nothing about the epochs that are done; the schedule and the
    # warm-up of the learning rate are parts of all epochs; None is a number that depends on the data.
    counted = None not in (told["max_epochs"], kept.get("max_epochs"))
    longer = {"max_epochs"} if counted and model.schedule == "constant" and not model.warmup else set()
    free = {"accelerator", "patience", *longer, *model.FREE}
    differing = sorted(k for k in told.keys() | kept.keys() if k not in free and told.get(k) != kept.get(k))
    if differing:
        raise RunFolderError(
            f"the run in {folder.path} cannot be resumed: it was begun with other settings or data",
            received=", ".join(f"{k}={_short(told.get(k))}" for k in differing),
            instead=", ".join(f"{k}={_short(kept.get(k))}" for k in differing) + "; or --overwrite to begin anew",
        )
    if config.get("state") != FINISHED:
        return TRAINING
    # More epochs than it was to have; a run that had enough before has come to its end.
    history, asked = _history(folder)[0], kept["max_epochs"]
    more = asked is not None and len(history) == asked < told["max_epochs"]
    return TRAINING if more and folder.last.exists() else FINISHED


def load(cls: "type[Found]", folder: RunFolder, cells: Iterable[Any]) -> "Found":
    """Read a run folder: the sizes in its config are held against its weights before any memory is taken for them."""
    config = folder.read_config(cls.task)
    folder.require_finished(config)
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
    model = cls(**{**settings, "cell": _cell(name, cells), "random_state": config.get("seed")})
    model.seed_, model.settings_ = field(config, "seed", int, folder.config), settings
    model._read_learnt(config, folder)
    model.tokenizer_ = model._read_tokenizer(folder)
    try:
        with torch.device("meta"):  # shapes without memory
            model._checked()
            network = model._network()
    except (OptionError, UnknownNameError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        said = str(error)[:500]  # torch adds its stack
        raise RunFolderError(f"{folder.config} is damaged: a setting", received=said, instead=AGAIN) from error
    weights = folder.read_weights(network.state_dict())
    network.load_state_dict(weights, assign=True)
    model.network_ = network.requires_grad_().eval()
    model.history_, model.best_epoch_ = _history(folder)
    model.about_ = {k: field(config, k, kind, folder.config) for k, kind in ABOUT.items() if k in config}
    return model


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


def _cell(name: str, cells: Iterable[Any]) -> Any:
    own = {getattr(cell, "__name__", ""): cell for cell in cells}
    if name not in own and name not in CELLS:
        raise UnknownNameError("cell (give your own by load(path, cells=[…]))", name, [*CELLS, *own])
    return own.get(name, name)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 24 else text[:12] + "…" + text[-4:]
