"""The folder that a training leaves: settings, weights, figures and a report, safe to open whoever made it.

==================  ===================================================================================
config.json         ``"format": 1``, the task, its settings, the data's fingerprint, versions, seed, sums
model.safetensors   the weights of the best epoch
tokenizer.json      where the task has one
metrics.json        figures of every epoch, of the best one, and of test data
report.html         the same as curves and pictures
checkpoints/        ``best.safetensors`` and ``last.safetensors``: what ``--resume`` goes on from
==================  ===================================================================================

Nothing here is pickled, and no code is imported by a name found in a file.
"""

import platform
import reprlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

import recurra
from recurra.errors import RunFolderError
from recurra.train import ranks
from recurra.train.files import is_stray, remove_strays, sha256_of, write_atomically
from recurra.train.strict_json import strict_json
from recurra.train.untrusted import (
    AGAIN,
    LARGEST_JSON,
    LARGEST_WEIGHTS,
    field,
    open_tensors,
    read_json,
    require_plain,
    require_utf8,
)

FORMAT = 1
NEW, TRAINING, FINISHED = "new", "training", "finished"  # a run before its first epoch's end, after it, and at its end
PACKAGES = ("torch", "lightning", "numpy", "tokenizers", "safetensors")

# safetensors' names of dtypes
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class RunFolder:
    """The paths of a run folder, and reading and writing what lies there.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.weights = self.path / "model.safetensors"
        self.tokenizer = self.path / "tokenizer.json"
        self.metrics = self.path / "metrics.json"
        self.report = self.path / "report.html"
        self.checkpoints = self.path / "checkpoints"
        self.last, self.best = self.checkpoints / "last.safetensors", self.checkpoints / "best.safetensors"

    def require_free(self, *, overwrite: bool = False) -> None:
        """Look whether a run may begin here; nothing is changed.

        Raises:
            RunFolderError: it holds a run, and `overwrite` is not set; or it holds other files.
        """
        require_utf8(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError("a run needs a folder, and there is a file of that name", received=str(self.path))
        holds_run = self._holds_run()
        if holds_run and not overwrite:
            state = "finished run" if self.weights.exists() else "run that was not finished"
            raise RunFolderError(
                f"the folder already holds a {state}",
                received=str(self.path),
                instead="--resume to go on with it, --overwrite to discard it, or another folder",
            )
        self._require_own_checkpoints()
        found = self.path.iterdir() if self.path.is_dir() else ()
        foreign = [f for f in found if f.name != self.checkpoints.name and not is_stray(f)]
        if not holds_run and foreign:
            raise RunFolderError(
                "the folder is not empty and holds no run, so nothing is written there",
                received=f"{self.path}, with {foreign[0].name}",
                instead="a new folder",
            )

    def prepare(self, *, overwrite: bool = False) -> None:
        """Make the folder ready to train in; a run that is there already is kept unless the caller says otherwise.

        Raises:
            RunFolderError: see :meth:`require_free`.
        """
        self.require_free(overwrite=overwrite)
        self.tidy()
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        # First, so that a run cut off from here on reads as one that is to begin, whatever is left of an older one.
        write_json(self.config, {"format": FORMAT, "state": NEW, "files": {}})
        # Only files of ours go.
        for file in (*self.checkpoints.glob("*.safetensors"), self.weights, self.tokenizer, self.metrics, self.report):
            file.unlink(missing_ok=True)

    def _holds_run(self) -> bool:
        """Whether ``config.json`` is of a run: models of other packages have files of the same names."""
        try:
            config = read_json(self.config)
        except RunFolderError:
            return False
        return "format" in config and "files" in config

    def tidy(self) -> None:
        """Remove what a process that was killed while it wrote left beside the files of the run.

        Raises:
            RunFolderError: the checkpoints lie elsewhere, where nothing is ours to remove.
        """
        self._require_own_checkpoints()
        for file in (self.config, self.weights, self.tokenizer, self.metrics, self.report, self.last, self.best):
            remove_strays(file)

    def _require_own_checkpoints(self) -> None:
        if self.checkpoints.is_symlink():
            raise RunFolderError(
                f"{self.checkpoints} leads out of the run folder",
                received=str(self.checkpoints.resolve()),
                instead="a folder of its own there",
            )

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write ``config.json``, with the format, and the sums of the files that reading will hold it against."""
        present = [f for f in (self.weights, self.tokenizer) if f.exists()]
        files = {f.name: {"bytes": f.stat().st_size, "sha256": sha256_of(f)} for f in present}
        write_json(self.config, {"format": FORMAT, **config, "files": files})

    def read_config(self, task: str) -> dict[str, Any]:
        """Read ``config.json`` and check the files it names.

        Raises:
            RunFolderError: no folder, no run, a damaged or changed file, another task, or a later format.
        """
        self._require_config()
        config = read_json(self.config)
        version = config.get("format")
        if type(version) is not int or version != FORMAT:
            raise RunFolderError(
                f"{self.config} is of format {reprlib.repr(version)}; this version of recurra reads format {FORMAT}",
                instead="a version of recurra that reads it" if isinstance(version, int) else AGAIN,
            )
        if config.get("state") != NEW and config.get("task") != task:
            raise RunFolderError(f"the run is of another task than {task!r}", received=reprlib.repr(config.get("task")))
        files = field(config, "files", dict, self.config)
        for name, said in files.items():
            self._check_file(name, said)
        return config

    def task(self) -> Any:
        """The task that ``config.json`` names, unchecked: whoever goes on calls :meth:`read_config`.

        Raises:
            RunFolderError: there is no run, or its config is damaged.
        """
        self._require_config()
        return read_json(self.config).get("task")

    def require_finished(self, config: Mapping[str, Any]) -> None:
        """Raise RunFolderError where a training has not come to its end, or a file has no sum in the config."""
        if config.get("state") != FINISHED or not self.weights.exists():
            raise RunFolderError(
                f"the run has no weights: it is not finished, or {self.weights.name} is missing",
                received=str(self.path),
                instead="finish it: the command of its training with --resume" if self.last.exists() else AGAIN,
            )
        bare = [f.name for f in (self.weights, self.tokenizer) if f.exists() and f.name not in config["files"]]
        if bare:
            raise RunFolderError(f"{self.config} is damaged: it has no sum of {bare[0]}", instead=AGAIN)

    def write_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Write ``model.safetensors``."""
        tensors = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in weights.items()}
        write_atomically(self.weights, safetensors.torch.save(tensors))

    def read_weights(self, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Read ``model.safetensors``.

        Args:
            expected: what the network of the config holds; tensors on the meta device do. Names, shapes and dtypes in
                the file's header are held against these before any weight is allocated.

        Raises:
            RunFolderError: the file is missing, damaged or truncated, does not fit, or holds NaN or infinite weights.
        """
        with open_tensors(self.weights, LARGEST_WEIGHTS) as file:
            names = set(file.keys())
            if names != expected.keys():
                missing, unknown = sorted(expected.keys() - names), sorted(names - expected.keys())
                raise RunFolderError(
                    f"{self.weights} does not fit {self.config.name}: weights are missing or unknown",
                    received=f"missing {reprlib.repr(missing)}, unknown {reprlib.repr(unknown)}",
                    instead=AGAIN,
                )
            for name, tensor in expected.items():
                part = file.get_slice(name)
                found = tuple(part.get_shape()), DTYPES.get(part.get_dtype(), part.get_dtype())
                if found != (tuple(tensor.shape), tensor.dtype):
                    raise RunFolderError(
                        f"{self.weights} does not fit {self.config.name}: {name} must be "
                        f"{tuple(tensor.shape)} of {tensor.dtype}",
                        received=f"{reprlib.repr(found[0])} of {found[1]}",
                        instead=AGAIN,
                    )
            tensors = {name: file.get_tensor(name) for name in expected}
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise RunFolderError(f"{self.weights} holds weights that are NaN or infinite: {name}", instead=AGAIN)
        return tensors

    def _require_config(self) -> None:
        if not self.path.is_dir():
            raise RunFolderError("there is no such run folder", received=str(self.path), instead="the folder of a run")
        if not self.config.exists():
            raise RunFolderError(
                "the folder holds no run: config.json is missing",
                received=str(self.path),
                instead="the folder of a run",
            )

    def _check_file(self, name: str, said: Any) -> None:
        known = {f.name: f for f in (self.weights, self.tokenizer)}
        if name not in known or not isinstance(said, dict):
            raise RunFolderError(
                f"{self.config} names a file that no run has", received=reprlib.repr(name), instead=AGAIN
            )
        path = known[name]
        size = require_plain(path, {self.weights: LARGEST_WEIGHTS, self.tokenizer: LARGEST_JSON}[path])
        if size != said.get("bytes"):
            raise RunFolderError(
                f"{path} is damaged or truncated",
                received=f"{size} bytes, {reprlib.repr(said.get('bytes'))} were written",
                instead=AGAIN,
            )
        if sha256_of(path) != said.get("sha256"):
            raise RunFolderError(f"{path} is damaged: its content is not what was written", instead=AGAIN)


def write_json(path: Path, document: Any) -> None:
    """Write JSON, indented, in UTF-8, without NaN."""
    write_atomically(path, strict_json(document, ensure_ascii=False) + "\n")


def versions() -> dict[str, str]:
    """The versions of what trained: Python and the packages that matter."""
    found = {"recurra": recurra.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """Where it trained: system, processor, torch's threads, processes, and a GPU's name."""
    return {
        "system": platform.system(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "architecture": platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": ranks.count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
