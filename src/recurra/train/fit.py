"""Fit a network: Lightning's loop, with our checkpoints."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from recurra.errors import RunFolderError
from recurra.train import ranks
from recurra.train.callbacks import Epoch, KeepEpochs, ShowProgress
from recurra.train.checkpoint import SafeCheckpointIO
from recurra.train.module import FitModule, Objective
from recurra.train.quiet import quiet_lightning
from recurra.train.resumable import require_resumable
from recurra.train.settings import FitSettings
from recurra.train.untrusted import LARGEST_JSON, require_utf8


@dataclass(frozen=True)
class Fitted:
    """What a training came to."""

    history: list[Epoch]
    best_epoch: int  # from 1; the network holds its weights


def fit(
    network: nn.Module,
    objective: Objective,
    train_batches: Any,
    valid_batches: Any | None,
    settings: FitSettings,
    *,
    checkpoints: Path,
    resume: bool = False,
    progress: bool = True,
) -> Fitted:
    """Train `network` in place and leave it with the weights of its best epoch.

    The random generators are used as they stand: seed them (:func:`recurra.train.randomness.seeded`) before the
    network is made. At each epoch's end everything that the rest of the training depends on is written to
    `checkpoints`, so a training that was stopped and resumed gives the weights of an unbroken one, bit for bit.

    In each process that torchrun starts, call it with the same arguments: each batch is drawn as one, its rows are
    divided among the processes, and the gradients weighted by them, so that without random numbers (dropout at 0) the
    weights are those of one process, but for rounding. The first process alone writes and prints.

    Args:
        network: what is trained.
        objective: ``(network, batch) -> Step``.
        train_batches: a DataLoader that draws from its own generator, not from torch's global one; its sampler gives
            lists of rows.
        valid_batches: the same of held-out data; None: no validation, and the last epoch counts as the best.
        settings: how.
        checkpoints: the folder of ``last.safetensors`` and ``best.safetensors``.
        resume: go on from ``last.safetensors``. The number of processes may be another; where random numbers are drawn,
            the weights are then others than those of the unbroken training.
        progress: show a bar and the figures of each epoch on stderr.

    Raises:
        DivergedError: the loss became NaN or infinite. RunFolderError: the checkpoint to resume from is not usable.
        KeyboardInterrupt: Ctrl-C; its message says what can be resumed.
    """
    require_utf8(checkpoints)
    shown = ShowProgress(settings.max_epochs) if progress and ranks.rank() == 0 else None
    epochs = KeepEpochs(
        checkpoints,
        settings.monitor if valid_batches is not None else None,
        settings.patience,
        shown.announce if shown else lambda *_: None,
    )
    callbacks: list[Callback] = [epochs, shown] if shown else [epochs]
    module = FitModule(network, objective, settings)
    held = sum(v.numel() * v.element_size() for v in network.state_dict().values())
    checkpoint_io = SafeCheckpointIO(
        lambda found: require_resumable(found, module.untrained(), epochs.monitor),
        largest=4 * held + LARGEST_JSON,  # Adam keeps two numbers beside each weight; the rest is small
    )
    with quiet_lightning():
        trainer = Trainer(
            **_processes(checkpoint_io),
            accelerator=settings.accelerator,
            max_epochs=settings.max_epochs,
            gradient_clip_val=settings.clip,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            # Tensors made in inference mode may be cached by the network, and could not be trained with afterwards.
            inference_mode=False,
        )
        try:
            valid_shares = ranks.shared(valid_batches) if valid_batches is not None else None
            _run(trainer, module, ranks.shared(train_batches), valid_shares, epochs, resume)
        finally:
            if shown:
                shown.close()
    best = checkpoint_io.load_checkpoint(epochs.best)
    if best["epoch"] + 1 != epochs.best_epoch:
        raise RunFolderError(
            f"{epochs.best.name} is of epoch {best['epoch'] + 1}, but the best one was {epochs.best_epoch}",
            received=str(epochs.best),
            instead="train again with --overwrite",
        )
    module.load_state_dict(best["state_dict"])
    network.to("cpu").eval()
    return Fitted(epochs.history, epochs.best_epoch)


def _processes(checkpoint_io: SafeCheckpointIO) -> dict[str, Any]:
    """The arguments of Trainer that say which processes train."""
    if ranks.count() == 1:
        # LightningEnvironment: inside of a SLURM job Lightning would otherwise take its checkpoints from there.
        return {"devices": 1, "plugins": [checkpoint_io, LightningEnvironment()]}
    return {
        "strategy": "ddp_find_unused_parameters_true",  # the first chunk of a text alone reads a learned state
        "devices": int(os.environ["LOCAL_WORLD_SIZE"]),
        "num_nodes": int(os.environ["GROUP_WORLD_SIZE"]),
        "use_distributed_sampler": False,  # batches are divided already: see ranks.shared
        "plugins": [checkpoint_io, TorchElasticEnvironment()],
    }


def _run(
    trainer: Trainer, module: FitModule, train_batches: Any, valid_batches: Any, epochs: KeepEpochs, resume: bool
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, train_batches, valid_batches, ckpt_path=epochs.last if resume else None)
    except SystemExit as stop:
        # Lightning turns Ctrl-C into SystemExit(1), and leaves the process deaf to any further one.
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        done = len(epochs.history)
        kept = f"the end of epoch {done} is saved" if done else "no epoch had ended, so resuming begins anew"
        raise KeyboardInterrupt(f"training was stopped in epoch {done + 1}: {kept}") from None
