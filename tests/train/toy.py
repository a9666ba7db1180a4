"""A training small enough for tests, with everything that resuming must carry: dropout, Adam, a schedule, shuffling."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from recurra.train.fit import fit
from recurra.train.module import Step
from recurra.train.randomness import seeded
from recurra.train.settings import FitSettings

ROWS, BATCH = 96, 16


class Points(Dataset):
    def __init__(self, rows, seed):
        rng = torch.Generator().manual_seed(seed)
        self.x = torch.randn(rows, 5, generator=rng)
        self.y = (self.x.sum(1) > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        return self.x[rows], self.y[rows]


class Shuffled(Sampler):
    """Whole batches, a pure function of the epoch."""

    def __init__(self, rows):
        self.rows, self.epoch = rows, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.rows // BATCH

    def __iter__(self):
        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        yield from (order[i : i + BATCH] for i in range(0, self.rows, BATCH))


def batches(rows, seed):
    points = Points(rows, seed)
    return DataLoader(points, batch_size=None, sampler=Shuffled(rows), generator=torch.Generator())


def objective(network, batch):
    scores = network(batch[0])
    right = (scores.argmax(1) == batch[1]).float().mean()
    return Step(nn.functional.cross_entropy(scores, batch[1]), len(batch[1]), {"accuracy": right})


def interrupted_after(steps, error):
    """The objective, which raises `error` in training step number `steps` + 1."""
    count = 0

    def with_interruption(network, batch):
        nonlocal count
        count += network.training
        if count > steps:
            raise error
        return objective(network, batch)

    return with_interruption


def train(folder, *, resume=False, held_out=True, objective=objective, seed=3, **settings):
    """A network, and what `fit` returns."""
    chosen = {"max_epochs": 5, "patience": None, "schedule": "linear", "warmup": 0.1, "learning_rate": 1e-2}
    with seeded(seed):
        network = nn.Sequential(nn.Linear(5, 20), nn.Dropout(0.5), nn.ReLU(), nn.Linear(20, 2))
        fitted = fit(
            network,
            objective,
            batches(ROWS, 0),
            batches(48, 1) if held_out else None,
            FitSettings(**chosen | settings),
            checkpoints=folder,
            resume=resume,
            progress=False,
        )
    return network, fitted
