"""What ``recurra evaluate``, ``predict`` and ``diagnose`` do with a run, by the task in its config."""

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# task -> module:function, called with the run's folder, what stands behind it, and the command's options by name; an
# option that a function has no parameter for is none of its task.
EVALUATE = {
    "classify": "recurra.cli.classify:evaluate_classes",
    "language": "recurra.cli.language:evaluate_language",
    "summarize": "recurra.cli.summarize:evaluate_summaries",
}
PREDICT = {
    "classify": "recurra.cli.classify:predict_classes",
    "language": "recurra.cli.language:predict_language",
    "summarize": "recurra.cli.summarize:predict_summaries",
}
DIAGNOSE = {
    "classify": "recurra.cli.classify:diagnose_classes",
    "language": "recurra.cli.language:diagnose_language",
    "summarize": "recurra.cli.summarize:diagnose_summaries",
}

ARGUMENTS = ("data", "texts")  # of the commands, which are no options


def call(table: Mapping[str, str], run: Path, given: Mapping[str, Any]) -> Any:
    """Call the function of the run's task, and give back what it does.

    Args:
        table: one of the above.
        run: the folder.
        given: the command's arguments and options by name; None: not given.

    Raises:
        RunFolderError: the folder holds no run, or one of another version. OptionError: an option is of another task.
    """
    from recurra.errors import OptionError, RunFolderError
    from recurra.train.run_folder import NEW, RunFolder
    from recurra.train.untrusted import read_json

    folder = RunFolder(run)
    task = folder.task()
    if task is None and read_json(folder.config).get("state") == NEW:  # it names its task once it has words
        folder.require_finished({})
    if not isinstance(task, str) or task not in table:
        raise RunFolderError("the run is of a task that this version does not know", received=repr(task)[:100])
    module, name = table[task].split(":")
    function = getattr(importlib.import_module(module), name)
    known = inspect.signature(function).parameters
    foreign = [k for k, v in given.items() if v is not None and v is not False and k not in known]
    if foreign:
        said = lambda name: f"--{name.replace('_', '-')}"
        raise OptionError(
            f"{said(foreign[0])} is no option for a run of task {task}",
            received=str(given[foreign[0]]),
            instead=", ".join(said(name) for name in given if name in known and name not in ARGUMENTS),
        )
    return function(run=run, **{k: v for k, v in given.items() if k in known})
