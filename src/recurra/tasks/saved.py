"""A TextClassifier as a run folder, and back."""

import dataclasses
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from tokenizers import Tokenizer

from recurra.cells import CELLS
from recurra.errors import OptionError, RunFolderError, UnknownNameError
from recurra.train.files import write_atomically
from recurra.train.run_folder import AGAIN, RunFolder, field, read_json

if TYPE_CHECKING:
    from recurra.tasks.classify import TextClassifier

Found = TypeVar("Found", bound="TextClassifier")
TASK = "classify"
LARGEST_LAYERS = 64  # a run with more is refused unread: each layer costs time to lay out, even without memory


def write_config(classifier: "TextClassifier", folder: RunFolder) -> None:
    """Write ``tokenizer.json`` and ``config.json``, of a run that begins or of one that is finished."""
    write_atomically(folder.tokenizer, classifier.tokenizer_.to_str())
    finished = folder.weights.exists()
    folder.write_config(
        {
            "task": TASK,
            "state": "finished" if finished else "training",
            "settings": classifier.settings(),
            "classes": classifier.classes_.tolist(),
            **classifier.about_,
        }
    )


def is_finished(classifier: "TextClassifier", folder: RunFolder) -> bool:
    """Whether a run that is to be resumed is finished already.

    Raises:
        RunFolderError: they differ, so that resuming could not give the weights of an unbroken run.
    """
    config = folder.read_config(TASK)
    told = {**classifier.settings(), "seed": classifier.seed_, "data": classifier.about_["data"]["fingerprint"]}
    settings, data = field(config, "settings", dict, folder.config), field(config, "data", dict, folder.config)
    kept = {**settings, "seed": config.get("seed"), "data": data.get("fingerprint")}
    # Where it runs and how often it may go on decide nothing about the epochs that are done.
    free = (
        {"accelerator", "max_epochs", "patience"} if classifier.schedule == "constant" else {"accelerator", "patience"}
    )
    differing = sorted(k for k in told.keys() | kept.keys() if k not in free and told.get(k) != kept.get(k))
    if differing:
        raise RunFolderError(
            f"the run in {folder.path} cannot be resumed: it was begun with other settings or data",
            received=", ".join(f"{k}={_short(told.get(k))}" for k in differing),
            instead=", ".join(f"{k}={_short(kept.get(k))}" for k in differing) + "; or --overwrite to begin anew",
        )
    return bool(config.get("state") == "finished")


def tokenizer_of(folder: RunFolder) -> Tokenizer:
    """Read ``tokenizer.json``.

    Raises:
        RunFolderError: it is damaged, or no vocabulary of words numbered from 0.
    """
    document = read_json(folder.tokenizer)
    model = field(document, "model", dict, folder.tokenizer)
    words = model.get("vocab")
    if (
        model.get("type") != "WordLevel"
        or not isinstance(words, dict)
        or sorted(words.values()) != [*range(len(words))]
    ):
        raise RunFolderError(f"{folder.tokenizer} is damaged: no vocabulary of words numbered from 0", instead=AGAIN)
    return Tokenizer.from_str(json.dumps(document))


def load(cls: "type[Found]", folder: RunFolder, cells: Iterable[Any]) -> "Found":
    """Read a run folder: the sizes in its config are held against its weights before any memory is taken for them."""
    config = folder.read_config(TASK)
    folder.require_finished()
    classes = _classes(config, folder)
    settings = field(config, "settings", dict, folder.config)
    known = {f.name for f in dataclasses.fields(cls)}
    if not settings.keys() <= known:
        raise RunFolderError(
            f"{folder.config} has settings that this version of recurra does not know",
            received=", ".join(sorted(settings.keys() - known)),
            instead="a version of recurra that reads it",
        )
    widths = settings.get("hidden_size")
    layers = len(widths) if isinstance(widths, list) else settings.get("num_layers")
    if not isinstance(layers, int) or layers > LARGEST_LAYERS:
        raise RunFolderError(f"{folder.config} is damaged: its number of layers", received=repr(layers), instead=AGAIN)
    name = field(config["settings"], "cell", str, folder.config)
    classifier = cls(**{**settings, "cell": _cell(name, cells), "random_state": config.get("seed")})
    classifier.classes_, classifier.seed_ = classes, field(config, "seed", int, folder.config)
    classifier.tokenizer_ = tokenizer_of(folder)
    try:
        with torch.device("meta"):  # shapes without memory
            classifier._checked()
            network = classifier._network()
    except (OptionError, TypeError, RuntimeError) as error:  # RuntimeError: torch, of sizes that overflow
        raise RunFolderError(f"{folder.config} is damaged: a setting", received=str(error), instead=AGAIN) from error
    weights = folder.read_weights(network.state_dict())
    network.load_state_dict(weights, assign=True)
    classifier.network_ = network.requires_grad_().eval()
    metrics = read_json(folder.metrics)
    classifier.history_ = field(metrics, "history", list, folder.metrics)
    classifier.best_epoch_ = field(metrics, "best_epoch", int, folder.metrics)
    kept = ("seed", "data", "notes", "versions", "machine", "seconds")
    classifier.about_ = {key: config[key] for key in kept if key in config}
    return classifier


def _classes(config: dict[str, Any], folder: RunFolder) -> np.ndarray[Any, np.dtype[Any]]:
    classes = field(config, "classes", list, folder.config)
    kinds = {type(c) for c in classes}
    if len(classes) < 2 or len(kinds) != 1 or not kinds <= {str, int, bool} or len(set(classes)) != len(classes):
        raise RunFolderError(
            f"{folder.config} is damaged: 'classes' must be several", received=repr(classes)[:80], instead=AGAIN
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
