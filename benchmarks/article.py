"""The article's network, one whole training step: contenders in this process, and what the others are sent."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import recurra
from benchmarks.cases import ROUNDED, Article
from benchmarks.contenders import rounded
from benchmarks.torch_modules import Network, Run, training
from recurra.data import encode, load_corpus, train_word_tokenizer
from recurra.data.public import find_imdb
from recurra.engine import EXECUTORS
from recurra.engine.scan import make_request


@dataclass(frozen=True)
class Batch:
    """Words, classes, lengths, and the weights that every contender starts from."""

    row: Article
    ids: Tensor  # (T, B)
    labels: Tensor  # (B,)
    lengths: Tensor | None  # (B,)
    weights: dict[str, Tensor]

    @property
    def flops(self) -> int:
        """Of the recurrent layers' matrix products on valid frames; the rest is small."""
        frames = self.ids.numel() if self.lengths is None else int(self.lengths.sum())
        weights = sum(w.numel() for name, w in self.weights.items() if name.startswith("lstm.weight"))
        return frames * weights * 6

    def arrays(self) -> dict[str, Any]:
        """All of it, to be sent to another process."""
        given = {"ids": self.ids, "labels": self.labels, **{f"w.{name}": w for name, w in self.weights.items()}}
        given |= {} if self.lengths is None else {"lengths": self.lengths}
        return {name: value.numpy() for name, value in given.items()}

    @property
    def spec(self) -> dict[str, Any]:
        """What the other process has to build."""
        return {"what": "article", **asdict(self.row)}


def draw(row: Article, data_dir: Path | None, seed: int = 0) -> Batch | str:
    """One batch; with lengths, of IMDB's own reviews, or the sentence that says why not."""
    torch.manual_seed(seed)
    weights = {name: w.detach().clone() for name, w in Network(asdict(row), nn.LSTM, "whole").state_dict().items()}
    labels = torch.randint(row.classes, (row.B,))
    ids = torch.randint(1, row.words, (row.T, row.B))
    if not row.lengths:
        return Batch(row, ids, labels, None, weights)
    if find_imdb(data_dir) is None:
        return "IMDB is not here: --data-dir, or RECURRA_DATA"
    texts = list(load_corpus("imdb", data_dir=data_dir).train.texts)
    chosen = [texts[k] for k in torch.randperm(len(texts))[: row.B].tolist()]
    reviews = encode(train_word_tokenizer(chosen, row.words), chosen, max_tokens=row.T)
    ids.zero_()
    for b, review in enumerate(reviews):
        ids[: len(review), b] = torch.from_numpy(review).long()
    return Batch(row, ids, labels, torch.tensor([len(review) for review in reviews]), weights)


def _recurra(batch: Batch) -> Run | str:
    """`recurra.LSTM` in the place of torch.nn's, on the native executor."""
    cell = recurra.LSTMCell(batch.row.D, batch.row.H)
    if why := EXECUTORS["native"].refusal(make_request(cell, torch.zeros(2, 2, batch.row.D))):
        return why
    step = _network(batch, recurra.LSTM, "whole" if batch.lengths is None else "lengths")

    def call() -> dict[str, Tensor]:
        with recurra.options(executor="native"):
            return step()

    return call


def _network(batch: Batch, recurrent: Callable[..., nn.LSTM], last: str) -> Run:
    network = Network(asdict(batch.row), recurrent, last)
    network.load_state_dict(batch.weights)
    return training(network, batch.ids, batch.labels, batch.lengths)


def _torch(last: str, *, lengths: bool) -> Callable[[Batch], Run | str]:
    def prepare(batch: Batch) -> Run | str:
        if (batch.lengths is not None) is not lengths:
            return "all sequences have one length" if lengths else "runs on padded and on packed batches"
        return _network(batch, nn.LSTM, last)

    return prepare


CONTENDERS: dict[str, Callable[[Batch], Run | str]] = {
    "recurra native": _recurra,
    ROUNDED: lambda batch: rounded(_recurra(batch)),
    "torch.nn": _torch("whole", lengths=False),
    "torch.nn, padded": _torch("padded", lengths=True),
    "torch.nn, packed": _torch("packed", lengths=True),
}
BASELINES = ("torch.nn", "torch.nn, padded")


def unequal(calls: dict[str, Run]) -> dict[str, str]:
    """Those that do not begin with torch's loss, or do not take the same first step: then the second loss differs.

    Raises:
        AssertionError: ours does not.
    """
    found = {}
    losses = {name: [float(call()["loss"]) for _ in range(2)] for name, call in calls.items()}
    expected = next(losses[name] for name in BASELINES if name in losses)
    for name, got in losses.items():
        # Adam divides by the root of tiny gradients, so that rounding errors are enlarged in its first step.
        for a, b, allowed in zip(got, expected, (1e-2, 1e-2) if name == ROUNDED else (1e-5, 1e-3), strict=True):
            if not abs(a - b) <= allowed * abs(b):
                found[name] = f"unequal work: losses {got}, expected {expected}"
    ours = [why for name, why in found.items() if name.startswith("recurra")]
    assert not ours, ours[0]
    return found
