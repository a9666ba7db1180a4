"""Tokens to class scores: embedding, recurrent layers, pooling over the valid frames, and one linear layer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from recurra.engine import options
from recurra.errors import UnknownNameError
from recurra.layers import Recurrent

INITIAL_DEVIATION = 0.1  # of word vectors: torch's N(0, 1) shuts the gates of a fresh LSTM on every word
UNKNOWN_ID = 1  # of "[UNK]", as recurra.data.train_word_tokenizer numbers it


def last_frame(y: Tensor, lengths: Tensor, forward: int) -> Tensor:
    """The last output of each direction: of the last valid frame forwards, and of frame 0 backwards. (B, width)."""
    rows = torch.arange(len(y), device=y.device)
    return torch.cat([y[rows, lengths - 1, :forward], y[:, 0, forward:]], dim=-1)


def mean_frame(y: Tensor, lengths: Tensor, _: int) -> Tensor:
    """The mean over valid frames. (B, width). Outputs past the lengths are exactly zero, so the sum needs no mask."""
    return y.sum(1) / lengths.unsqueeze(1)


def max_frame(y: Tensor, lengths: Tensor, _: int) -> Tensor:
    """The greatest output of each unit over valid frames. (B, width)."""
    past = torch.arange(y.shape[1], device=y.device) >= lengths.unsqueeze(1)
    return y.masked_fill(past.unsqueeze(2), float("-inf")).amax(1)


# name -> (y (B, T, width), lengths (B,) at least 1, how many of y's columns run forwards) -> (B, width)
POOLINGS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "last": last_frame,
    "mean": mean_frame,
    "max": max_frame,
}


def poolings_named(name: str) -> list[Callable[[Tensor, Tensor, int], Tensor]]:
    """The poolings of a name such as ``"max"`` or ``"mean_max"``, whose results stand side by side.

    Raises:
        UnknownNameError: a part of the name is no pooling.
    """
    parts = name.split("_")
    if not set(parts) <= POOLINGS.keys():
        raise UnknownNameError("pooling (join several by _)", name, [*POOLINGS, "mean_max"])
    return [POOLINGS[part] for part in parts]


class TextNetwork(nn.Module):
    """Class scores of texts.

    Args:
        vocabulary: V, the number of token ids.
        classes: the number of classes.
        cell, hidden_size, num_layers, bidirectional: as :class:`~recurra.Recurrent` takes them.
        embedding_size: D, the width of a token's vector.
        pooling: ``"last"``, ``"mean"``, ``"max"``, or several joined by ``_``.
        dropout: between recurrent layers. embedding_dropout: on the vectors. head_dropout: before the linear layer.
        word_dropout: the part of tokens that training replaces by the unknown word.

    Example:
        >>> network = TextNetwork(20, 2, cell="gru", hidden_size=4, embedding_size=3)
        >>> network(torch.tensor([[5, 7, 0], [3, 2, 1]]), torch.tensor([2, 3])).shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        *,
        cell: Any,
        hidden_size: Any,
        embedding_size: int,
        num_layers: int | None = None,
        bidirectional: bool = False,
        pooling: str = "last",
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        head_dropout: float = 0.0,
        word_dropout: float = 0.0,
    ):
        super().__init__()
        self.pools = poolings_named(pooling)
        self.embedding = nn.Embedding(vocabulary, embedding_size)
        nn.init.normal_(self.embedding.weight, std=INITIAL_DEVIATION)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.recurrent = Recurrent(
            cell, embedding_size, hidden_size, num_layers, bidirectional=bidirectional, dropout=dropout
        )
        width = self.recurrent.output_size
        self.forward_width = width // 2 if bidirectional else width
        self.head_dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(width * len(self.pools), classes)
        self.word_dropout = word_dropout

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Scores.

        Args:
            tokens: ``(B, T)`` ids below V.
            lengths: ``(B,)``, 1 to T; what lies past them is never read.

        Returns:
            ``(B, classes)`` scores before the softmax.
        """
        return self.scores(self.vectors(tokens), lengths)

    def vectors(self, tokens: Tensor) -> Tensor:
        """Word vectors ``(B, T, D)`` of ids ``(B, T)``, with what training drops."""
        if self.training and self.word_dropout:
            dropped = torch.rand(tokens.shape, device=tokens.device) < self.word_dropout
            tokens = tokens.masked_fill(dropped, UNKNOWN_ID)
        return self.embedding_dropout(self.embedding(tokens))  # type: ignore[no-any-return]

    def scores(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Scores ``(B, classes)`` of word vectors ``(B, T, D)``."""
        with options(check_nan=False):  # words hold no NaN: it would be of the weights, and the loss then tells
            y, _ = self.recurrent(x, lengths=lengths)
        pooled = torch.cat([pool(y, lengths, self.forward_width) for pool in self.pools], dim=-1)
        return self.head(self.head_dropout(pooled))  # type: ignore[no-any-return]
