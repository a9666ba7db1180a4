"""Attention: what each of several queries finds among the states of a sequence."""

import math

import torch
from torch import Tensor, nn

from recurra.errors import UnknownNameError

KINDS = ("additive", "multiplicative")


class Attention(nn.Module):
    r"""Attention of queries over the states of a sequence.

    .. math::
        e_{ts} &= v^\top \tanh(W q_t + U m_s) && \text{additive (Bahdanau et al., 2015)} \\
        e_{ts} &= (W q_t)^\top m_s / \sqrt{M} && \text{multiplicative (Luong et al., 2015)} \\
        a_t &= \mathrm{softmax}_s(e_{ts}) \text{ over the valid frames}, \qquad c_t = \sum_s a_{ts} m_s

    Args:
        query_size: Q, the width of a query. memory_size: M, the width of a state.
        kind: ``"additive"``, which takes memory for ``(B, T, S, M)``, or ``"multiplicative"``.

    Raises:
        UnknownNameError: no attention is of that kind.

    Example:
        >>> look = Attention(3, 4)
        >>> context, weights = look(torch.randn(2, 5, 3), torch.randn(2, 6, 4), torch.tensor([6, 2]))
        >>> context.shape, weights.shape, bool((weights[1, :, 2:] == 0).all())
        (torch.Size([2, 5, 4]), torch.Size([2, 5, 6]), True)
    """

    def __init__(self, query_size: int, memory_size: int, kind: str = "multiplicative"):
        super().__init__()
        if kind not in KINDS:
            raise UnknownNameError("attention", kind, KINDS)
        self.kind = kind
        self.query = nn.Linear(query_size, memory_size, bias=False)
        if kind == "additive":
            self.memory = nn.Linear(memory_size, memory_size)
            self.score = nn.Linear(memory_size, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """What queries are held against, ``(B, S, M)``, for a `memory` that is asked more than once."""
        return self.memory(memory) if self.kind == "additive" else memory

    def forward(
        self, queries: Tensor, memory: Tensor, lengths: Tensor, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the queries find.

        Args:
            queries: ``(B, T, Q)``; each is answered by itself. memory: ``(B, S, M)`` states.
            lengths: ``(B,)``, 1 to S: the states past them have weight 0.
            keys: what :meth:`keys` made of the same memory; None: they are made here.

        Returns:
            ``(context, weights)``: ``(B, T, M)``, and ``(B, T, S)`` whose rows sum to one.
        """
        asked, keys = self.query(queries), self.keys(memory) if keys is None else keys
        if self.kind == "additive":
            energy = self.score(torch.tanh(asked.unsqueeze(2) + keys.unsqueeze(1))).squeeze(3)
        else:
            energy = asked @ keys.transpose(1, 2) / math.sqrt(keys.shape[2])
        past = torch.arange(memory.shape[1], device=memory.device) >= lengths.unsqueeze(1)
        weights = energy.masked_fill(past.unsqueeze(1), float("-inf")).softmax(-1)
        return weights @ memory, weights
