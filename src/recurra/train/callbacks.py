"""What happens around the epochs of a training: figures kept, checkpoints written, progress shown."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import override

from recurra.train import ranks
from recurra.train.randomness import random_states, restore_random_states, seed_apart
from recurra.train.settings import MONITORS

Epoch = dict[str, float]  # "epoch" (from 1), "loss", "valid_loss", "learning_rate", "seconds", and the task's figures
SHOWN = ("loss", "accuracy", "valid_loss", "valid_accuracy")  # in an epoch's line, where the task has them


class KeepEpochs(Checkpoint):
    """Keeps the figures of every epoch, writes ``best`` and ``last`` at each epoch's end, and stops early.

    Derived from Lightning's Checkpoint so that it runs after every other callback and saves what they ended with.

    Args:
        folder: where the two checkpoints are written.
        monitor: the figure that says which epoch is the best; None: the last one is.
        patience: stop after so many epochs that were not the best; None: never.
        announce: called after an epoch was saved, with its figures, and whether it is the best so far.
    """

    def __init__(
        self, folder: Path, monitor: str | None, patience: int | None, announce: Callable[[Epoch, bool], None]
    ):
        self.patience = patience
        self.announce = announce
        self.last, self.best = folder / "last.safetensors", folder / "best.safetensors"
        self.monitor = monitor
        self.history: list[Epoch] = []
        self.best_epoch = 0  # from 1; 0: none yet
        self._began = time.perf_counter()
        self._random: list[dict[str, Any]] = []  # of each process, where a training is resumed

    @override
    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs: the figures so far, and the states of all random generators."""
        first, *others = ranks.gathered(random_states())
        return {"history": self.history, "best_epoch": self.best_epoch, "random": first, "others": others}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse; random states are put in place when training begins, after Lightning has drawn what it draws."""
        self.history, self.best_epoch = state_dict["history"], state_dict["best_epoch"]
        self._random = [state_dict["random"], *state_dict.get("others", [])]  # "others": not in the oldest ones

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Have as many epochs as are done, where fewer are asked for now."""
        trainer.fit_loop.max_epochs = max(trainer.fit_loop.max_epochs or 0, checkpoint["epoch"] + 1)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin where the saved epoch ended, and let each process draw its own random numbers."""
        rank = ranks.rank()
        if rank < len(self._random):
            restore_random_states(self._random[rank])
        elif rank:  # the first one draws what it would draw alone
            seed_apart(torch.initial_seed(), rank, trainer.current_epoch)
        self._stop_if_patience_is_over(trainer)  # a run may have been killed just after its last epoch was saved

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's figures, then save: ``best`` first, so that ``last`` never names a best that is not there."""
        figures = {k: float(v) for k, v in trainer.callback_metrics.items()}
        self.history.append(
            {
                "epoch": trainer.current_epoch + 1,
                **figures,
                "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
                "seconds": time.perf_counter() - self._began,
            }
        )
        improved = self._improved()
        if improved:
            self.best_epoch = trainer.current_epoch + 1
            trainer.save_checkpoint(self.best)
        trainer.save_checkpoint(self.last)
        self.announce(self.history[-1], improved)
        self._stop_if_patience_is_over(trainer)

    def _stop_if_patience_is_over(self, trainer: Trainer) -> None:
        # Not Lightning's EarlyStopping: to that a tie in accuracy is no progress, however much the loss has fallen.
        if self.patience is not None and len(self.history) - self.best_epoch >= self.patience:
            trainer.should_stop = True

    def _improved(self) -> bool:
        if self.monitor is None or not self.best_epoch:
            return True
        worth = lambda name, value: -math.inf if math.isnan(value) else value if MONITORS[name] else -value
        # Accuracy on few texts ties often; then the loss decides.
        names = (self.monitor, "valid_loss")
        new, best = self.history[-1], self.history[self.best_epoch - 1]
        return [worth(name, new[name]) for name in names] > [worth(name, best[name]) for name in names]


class ShowProgress(Callback):
    """One bar over all epochs, on stderr, with loss, accuracy and time left; one line for each epoch that ended."""

    def __init__(self, max_epochs: int):
        self.max_epochs = max_epochs
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("at most"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("left"),
            console=self.console,
            transient=True,  # the lines of the epochs stay
            disable=not self.console.is_terminal,
        )
        self.task: TaskID | None = None
        self.sums: dict[str, torch.Tensor] = {}
        self.batches = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar, from where the training stands."""
        steps = int(trainer.num_training_batches)
        self.task = self.bar.add_task(
            "", total=steps * (self.max_epochs), completed=steps * trainer.current_epoch, figures=""
        )
        self.bar.start()

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the running means anew."""
        self.sums, self.batches = {}, 0
        self._update(description=f"epoch {trainer.current_epoch + 1}/{self.max_epochs}")

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the running means of the epoch."""
        self.batches += 1
        for name, value in outputs.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        # Reading a value makes a GPU wait, so a bar that nobody sees moves by the epoch.
        if self.console.is_terminal and self.batches % 5 == 0:
            shown = "  ".join(f"{k} {float(v) / self.batches:.3f}" for k, v in self.sums.items())
            self._update(figures=shown, completed=trainer.global_step)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that held-out data is looked at."""
        self._update(description=f"epoch {trainer.current_epoch + 1}/{self.max_epochs} (validation)")

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the bar to the epoch's end; its line is printed by :meth:`announce`, once its figures are complete."""
        self._update(completed=trainer.global_step)

    def announce(self, figures: Epoch, improved: bool) -> None:
        """Print the line of an epoch that ended."""
        shown = "  ".join(f"{name.replace('_', ' ')} {figures[name]:.4f}" for name in SHOWN if name in figures)
        best = "  best so far" if improved else ""
        line = f"epoch {figures['epoch']}/{self.max_epochs}  {shown}  {figures['seconds']:.0f} s{best}"
        self.console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away, however the training ended."""
        self.bar.stop()

    def _update(self, **changes: Any) -> None:
        if self.task is not None:
            self.bar.update(self.task, **changes)
