"""One Lightning module for every task: a network, and an objective that turns a batch into a loss."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, distributed, nn
from typing_extensions import override

from recurra.engine import options
from recurra.errors import DivergedError
from recurra.train import ranks
from recurra.train.settings import FitSettings


class Step(NamedTuple):
    """What an objective makes of one batch."""

    loss: Tensor  # () the mean over the batch
    size: int  # how many texts, frames … that mean is over
    figures: dict[str, Tensor]  # name -> (), means over the same


Objective = Callable[[nn.Module, Any], Step]

# name -> how it is made, and what it keeps beside a weight
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], Callable[[Tensor], dict[str, Tensor]]]] = {
    # Fused, a step over large embeddings takes a sixth of the time.
    "adamw": (
        partial(torch.optim.AdamW, fused=True),
        lambda w: {"step": torch.zeros(()), "exp_avg": w, "exp_avg_sq": w},
    ),
    "sgd": (torch.optim.SGD, lambda w: {}),
}


class FitModule(LightningModule):
    """Trains `network` on `objective`, whatever the task; figures of validation get the prefix ``valid_``."""

    def __init__(self, network: nn.Module, objective: Objective, settings: FitSettings):
        super().__init__()
        self.network, self.objective, self.settings = network, objective, settings

    @override
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The loss of a batch.

        Raises:
            DivergedError: it is NaN or infinite.
        """
        with options(save=self.settings.backward_memory):
            step = self._step(batch)
        if not torch.isfinite(step.loss):
            raise self._diverged(f"the training loss became {step.loss.item()}", f"batch {batch_idx + 1}")
        figures = {"loss": step.loss, **step.figures}
        self.log_dict({k: v.detach() for k, v in figures.items()}, on_step=False, on_epoch=True, batch_size=step.size)
        return figures

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The figures of a held-out batch."""
        step = self._step(batch)
        figures = {"valid_loss": step.loss, **{f"valid_{k}": v for k, v in step.figures.items()}}
        self.log_dict(figures, on_step=False, on_epoch=True, batch_size=step.size)

    @override
    def on_train_epoch_end(self) -> None:
        """Before an epoch is saved.

        Raises:
            DivergedError: its last step left NaN or infinity, which no loss has shown yet.
        """
        states = (value for state in self.trainer.optimizers[0].state.values() for value in state.values())
        if not all(bool(value.isfinite().all()) for value in (*self.parameters(), *states)):
            raise self._diverged("weights, or their gradients, became NaN or infinite", "the last batch")

    def _diverged(self, what: str, batch: str) -> DivergedError:
        return DivergedError(
            f"{what} in epoch {self.current_epoch + 1}, {batch}",
            received=f"learning_rate={self.settings.learning_rate:g}, clip={self.settings.clip}",
            instead="a lower learning_rate, or gradient clipping (clip=1.0)",
        )

    def _step(self, batch: Any) -> Step:
        if isinstance(batch, ranks.Share):
            return whole(self.objective(self.network, batch.batch), batch.counts)
        return self.objective(self.network, batch)

    @override
    def configure_optimizers(self) -> Any:
        """The optimizer of the settings, and the schedule, one step a batch."""
        optimizer, schedule = self._optimizer(int(self.trainer.estimated_stepping_batches))
        # An epoch's end is saved before Lightning steps an epochwise schedule, so only a stepwise one resumes exactly.
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def untrained(self) -> dict[str, Any]:
        """What a checkpoint of this training must be like: see :func:`recurra.train.resumable.require_resumable`."""
        optimizer, schedule = self._optimizer(1)
        shapes = [torch.empty_like(w, device="meta") for w in self.parameters()]
        state_of = OPTIMIZERS[self.settings.optimizer][1]
        states = {i: found for i, w in enumerate(shapes) if (found := state_of(w))}
        loops = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
        return {
            "state_dict": self.state_dict(),
            "loops": {name: getattr(self.trainer, name).state_dict() for name in loops},
            "optimizer_states": [{**optimizer.state_dict(), "state": states}],
            "lr_schedulers": [schedule.state_dict()],
        }

    def _optimizer(self, total: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        settings = self.settings
        make = OPTIMIZERS[settings.optimizer][0]
        optimizer = make(self.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        factor = lambda step: learning_rate_factor(settings, step, total)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def whole(step: Step, counts: bool) -> Step:
    """The step of the whole batch, the same in all processes, made of each one's share of it.

    The gradient of its loss is that of the share, scaled so that the mean over processes, which is what DDP takes, is
    the gradient of the whole batch's loss.

    Args:
        step: of the share. counts: False where the share is a row of another process's.
    """
    size = step.size if counts else 0
    own = torch.stack([step.loss.detach(), *step.figures.values()]).double()
    sums = torch.cat([own * size, own.new_tensor([size])])
    distributed.all_reduce(sums)
    loss, *figures = (sums[:-1] / sums[-1]).to(step.loss.dtype)
    total = int(sums[-1])
    scaled = step.loss * (size * ranks.count() / total)
    return Step(loss + (scaled - scaled.detach()), total, dict(zip(step.figures, figures, strict=True)))


def learning_rate_factor(settings: FitSettings, step: int, total: int) -> float:
    """What the learning rate is multiplied by at `step` of `total`.

    Example:
        >>> [learning_rate_factor(FitSettings(schedule="linear", warmup=0.2), step, 10) for step in (0, 1, 2, 6)]
        [0.5, 1.0, 1.0, 0.5]
    """
    warm = math.ceil(settings.warmup * total)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, total - warm)
    return {"constant": 1.0, "linear": max(0.0, 1 - done), "cosine": 0.5 * (1 + math.cos(math.pi * min(1.0, done)))}[
        settings.schedule
    ]
