"""Lightning's own messages that would be noise to a user of Recurra, silenced one by one."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# (message, category, module): each with its reason
WARNINGS: list[tuple[str, type[Warning], str]] = [
    # Batches are made from arrays in memory, faster than a worker process could hand them over.
    (r"The '\w+' does not have many workers", UserWarning, r"lightning\.pytorch"),
    # Training without held-out data is a setting, not an oversight.
    (r"You defined a `validation_step` but have no `val_dataloader`", UserWarning, r"lightning\.pytorch"),
    # Figures are those of the whole batch in each process already: see FitModule.
    (r"It is recommended to use `self.log\(.*sync_dist=True\)`", UserWarning, r"lightning\.pytorch"),
    # Some networks have weights that a step does not read, most have none: see fit.
    (r"find_unused_parameters=True was specified", UserWarning, r"torch\."),
    # Lightning 2.6 asks torch 2.13's pytree in the manner of torch 2.4; nothing of it depends on a user.
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning, r"lightning\.pytorch"),
]

# These report devices, tips and how the loop ended at INFO; what of that matters is shown by ShowProgress.
LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero", "lightning.pytorch")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Inside of the block Lightning says nothing below a warning, nor the warnings listed above."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message, category, module in WARNINGS:
                warnings.filterwarnings("ignore", message=message, category=category, module=module)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
