"""Gradients through time, watched while a network trains: a callback for Lightning."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from recurra.diagnose.flow import Flow, gradient_flow


class WatchGradients(Callback):
    """Logs, once in so many epochs, how gradients fare on one batch of the training data.

    For each layer and direction ``decay_per_frame/…`` and ``reach/…`` go to the trainer's loggers, and all of the
    :class:`~recurra.diagnose.Flow` to :attr:`history`. One batch an epoch, and few sequences of it: the cost stays far
    below that of the epoch.

    Args:
        inputs: how the model is called on a batch: ``inputs(batch) -> (args, keywords)``; None: ``model(batch[0])``.
        module: the path of the network within the LightningModule; empty: the module itself.
        every: epochs from one look to the next.
        anchors, sequences: as :func:`~recurra.diagnose.gradient_flow` takes them.

    Attributes:
        history: the epoch, from 1, and the flows, of each look.
    """

    def __init__(
        self, inputs: Any = None, *, module: str = "", every: int = 1, anchors: int = 8, sequences: int = 8
    ) -> None:
        self.inputs, self.module, self.every = inputs, module, every
        self.anchors, self.sequences = anchors, sequences
        self.history: list[tuple[int, list[Flow]]] = []

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the first batch of an epoch whose turn it is."""
        epoch = trainer.current_epoch
        if batch_idx or epoch % self.every or trainer.global_rank:
            return
        args, keywords = ((batch[0],), {}) if self.inputs is None else self.inputs(batch)
        model = pl_module.get_submodule(self.module)
        with torch.random.fork_rng(devices=[]):  # the training draws what it would have drawn
            flows = gradient_flow(model, *args, anchors=self.anchors, sequences=self.sequences, **keywords)
        self.history.append((epoch + 1, flows))
        for flow in flows:
            name = flow.name.replace(" ", "_").replace(",", "")
            pl_module.log_dict({f"decay_per_frame/{name}": flow.decay_per_frame, f"reach/{name}": flow.reach})
