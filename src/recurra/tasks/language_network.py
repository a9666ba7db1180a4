"""Tokens to scores of the token that follows: embedding, recurrent layers, and one linear layer."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from recurra.cells import Cell, cell_named, weight_drop
from recurra.engine import options
from recurra.errors import OptionError
from recurra.layers import (
    LockedDropout,
    Recurrent,
    TiedHead,
    activation_penalty,
    embedded,
    temporal_activation_penalty,
)
from recurra.layers.chunks import detached
from recurra.train.module import Step

INITIAL_RANGE = 0.1  # of token vectors (Zaremba et al., 2014): rare words, which are hardly learnt, then say little
IGNORED = -1  # the target past the end of a stream


class LanguageNetwork(nn.Module):
    """Scores of the next token.

    Args:
        vocabulary: V, the number of token ids.
        cell, hidden_size, num_layers: as :class:`~recurra.Recurrent` takes them.
        embedding_size: D, the width of a token's vector.
        tied: score tokens by the matrix that embeds them; the last layer must then be as wide as the vectors.
        dropout: between layers. input_dropout: on vectors. output_dropout: on the last layer's outputs. All three drop
            the same units in all frames of a chunk.
        embedding_dropout: the part of the vocabulary that a chunk drops.
        weight_dropout: the part of the recurrent weights ``weight_hh`` that a chunk drops.
        initial_range: token vectors begin within so much of 0.

    Raises:
        OptionError: `tied`, and the widths differ. UnknownNameError: weights are to be dropped that the cell has not.

    Example:
        >>> network = LanguageNetwork(20, cell="gru", hidden_size=4, embedding_size=4, tied=True)
        >>> scores, state = network(torch.tensor([[5, 7, 0], [3, 2, 1]]))
        >>> scores.shape
        torch.Size([2, 3, 20])
    """

    batch_first, bidirectional = True, False

    def __init__(
        self,
        vocabulary: int,
        *,
        cell: Any,
        hidden_size: Any,
        embedding_size: int,
        num_layers: int | None = None,
        tied: bool = False,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        initial_range: float = INITIAL_RANGE,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding_size)
        nn.init.uniform_(self.embedding.weight, -initial_range, initial_range)
        self.embedding_dropout = embedding_dropout
        self.input_dropout, self.output_dropout = LockedDropout(input_dropout), LockedDropout(output_dropout)
        made = _dropping(cell, weight_dropout) if weight_dropout else cell
        self.recurrent = Recurrent(made, embedding_size, hidden_size, num_layers, dropout=dropout, locked_dropout=True)
        width = self.recurrent.output_size
        if tied and width != embedding_size:
            raise OptionError(
                "tied needs a last layer as wide as a token's vector",
                received=f"an output of {width}, embedding_size={embedding_size}",
                instead=f"embedding_size={width}, or hidden_size=[…, {embedding_size}]",
            )
        self.tied = tied
        self.head: nn.Module = TiedHead(vocabulary) if tied else nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Scores, and where the layers stand after them.

        Args:
            tokens: ``(B, T)`` ids below V.
            state: of the tokens before; None: there are none.

        Returns:
            ``(scores, state)``: scores ``(B, T, V)`` of each token's successor, before the softmax.
        """
        y, state = self.outputs(tokens, state)
        return self.scores(self.output_dropout(y)), state

    def vectors(self, tokens: Tensor) -> Tensor:
        """Vectors ``(B, T, D)`` of ids ``(B, T)``, with what training drops."""
        x = embedded(tokens, self.embedding.weight, self.embedding_dropout, self.training)
        return self.input_dropout(x)  # type: ignore[no-any-return]

    def outputs(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """What the last layer says, ``(B, T, width)``, and the state after it."""
        with options(check_nan=False):  # tokens hold no NaN: it would be of the weights, and the loss then tells
            return self.recurrent(self.vectors(tokens), state)  # type: ignore[no-any-return]

    def scores(self, y: Tensor) -> Tensor:
        """Scores ``(..., V)`` of outputs ``(..., width)``."""
        return self.head(y, self.embedding.weight) if self.tied else self.head(y)  # type: ignore[no-any-return]


def _dropping(cell: Any, p: float) -> Callable[[int, int], Cell[Any]]:
    make = cell_named(cell) if isinstance(cell, str) else cell
    return lambda D, H: weight_drop(make(D, H), p)


class NextToken:
    """The objective of a language model: cross-entropy of the next token, each stream going on where it was.

    Args:
        activation: times :func:`recurra.layers.activation_penalty` of the last layer's outputs after dropout.
        temporal: times :func:`recurra.layers.temporal_activation_penalty` of them before it.
    """

    def __init__(self, activation: float = 0.0, temporal: float = 0.0):
        self.activation, self.temporal = activation, temporal
        self.state: Any = None

    def __call__(self, network: Any, batch: dict[str, Any]) -> Step:
        """The loss of a chunk of all streams; that of training holds the penalties."""
        y, state = network.outputs(batch["tokens"], None if batch["begins"] else self.state)
        self.state = detached(state)
        dropped = network.output_dropout(y)
        targets = batch["targets"].flatten()
        total = nn.functional.cross_entropy(
            network.scores(dropped).flatten(0, 1), targets, ignore_index=IGNORED, reduction="sum"
        )
        loss = total / max(1, batch["count"])
        if network.training and self.activation:
            loss = loss + self.activation * activation_penalty(dropped)
        if network.training and self.temporal:
            loss = loss + self.temporal * temporal_activation_penalty(y)
        return Step(loss, batch["count"], {})


class Streams(Dataset[dict[str, Any]]):
    """A text cut into B parts that are read side by side, chunk by chunk; every token is predicted once.

    Indexed by a list of ``(stream, chunk)`` of one chunk, it gives ``tokens`` and ``targets`` ``(B, chunk)``, `count`,
    how many targets there are, and whether the streams `begin` there. Past its end the last stream holds targets of -1.

    Args:
        ids: ``(N,)``, of any type; memory-mapped ones are read where a chunk is. begin: what stands before the first.
        batch_size: B, at most. chunk: frames of a chunk.

    Example:
        >>> streams = Streams(np.arange(1, 8), begin=0, batch_size=2, chunk=3)
        >>> first, last = (streams[at] for at in streams.order())
        >>> first["tokens"].tolist(), last["targets"].tolist(), last["count"], last["begins"]
        ([[0, 1, 2], [4, 5, 6]], [[4], [-1]], 1, False)
    """

    def __init__(self, ids: np.ndarray[Any, np.dtype[Any]], *, begin: int, batch_size: int, chunk: int):
        self.length = -(-len(ids) // batch_size)
        self.rows = -(-len(ids) // self.length)  # no stream without a token
        self.ids, self.begin, self.chunk = ids, begin, chunk

    def order(self) -> "Order":
        """The chunks in order, each as the rows that make it: processes that train together divide these."""
        return Order(self.rows, -(-self.length // self.chunk))

    def __getitem__(self, at: list[tuple[int, int]]) -> dict[str, Any]:
        k, N = at[0][1], len(self.ids)
        frames = np.arange(k * self.chunk, min((k + 1) * self.chunk, self.length))
        where = np.array([[row] for row, _ in at]) * self.length + frames  # (B, chunk)
        inside = where < N
        targets = np.where(inside, self.ids[np.minimum(where, N - 1)].astype(np.int64), IGNORED)
        tokens = np.where(inside, self.ids[np.clip(where - 1, 0, N - 1)].astype(np.int64), 0)
        tokens[where == 0] = self.begin
        return {
            "tokens": torch.from_numpy(tokens),
            "targets": torch.from_numpy(targets),
            "count": int(inside.sum()),
            "begins": k == 0,
        }

    def batches(self) -> DataLoader[dict[str, Any]]:
        """The same as a loader, for Lightning."""
        # Each pass draws one number; from torch's global generator that would move the dropout of a resumed run.
        return DataLoader(self, batch_size=None, sampler=self.order(), generator=torch.Generator())


class Order(Sequence[list[tuple[int, int]]]):
    """Lists of ``(stream, chunk)``, one a chunk; of a long text too many to be held."""

    def __init__(self, rows: int, chunks: int):
        self.rows, self.chunks = rows, chunks

    @override
    def __len__(self) -> int:
        return self.chunks

    @override
    def __getitem__(self, k: Any) -> Any:
        if k >= self.chunks:
            raise IndexError(k)
        return [(row, k) for row in range(self.rows)]
