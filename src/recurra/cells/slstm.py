"""sLSTM: the math of one step, and nothing else."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, logsigmoid

from recurra.cells.base import Cell
from recurra.errors import OptionError

_LEAST = -1e30


class SLSTMState(NamedTuple):
    """What an sLSTM carries from frame to frame."""

    h: Tensor  # (B, H) hidden state: what the next layer reads
    c: Tensor  # (B, H) cell state
    n: Tensor  # (B, H) normaliser: what the cell state would be if its input were 1 all the time
    m: Tensor  # (B, H) stabiliser: the logarithm of what c and n are divided by


class SLSTMCell(Cell[SLSTMState]):
    r"""Scalar LSTM of the xLSTM paper: exponential gates, a normaliser, a stabiliser (Beck et al., 2024, section 2.2).

    .. math::
        i, f, z, o &= W_{ih} x_t + b + R h_{t-1} \\
        m_t &= \max(\log\sigma(f) + m_{t-1}, i) \\
        i' &= \exp(i - m_t), \qquad f' = \exp(\log\sigma(f) + m_{t-1} - m_t) \\
        c_t &= f' \odot c_{t-1} + i' \odot \tanh(z) \\
        n_t &= f' \odot n_{t-1} + i' \\
        h_t &= \sigma(o) \odot c_t / n_t, \qquad y_t = h_t

    These are the paper's equations 8 to 17 with the sigmoid for the forget gate, for each sequence by itself. Before
    the first frame m is below everything, so that its stabiliser is i: nothing is there to be forgotten, and n is never
    0. Published codes differ from the equations and from one another: in the order of the gates, in a lower bound on n,
    and in a normalisation over heads behind the cell. The recurrent matrix is block-diagonal, one block a head.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.
        num_heads: how many groups of units read one another's past; divides H.

    Weights: ``weight_ih (4H, D)``, ``weight_hh (4K, P, P)`` for K heads of P units each, ``bias (4H,)``, in the order
    i f z o.

    Raises:
        OptionError: `num_heads` does not divide H.

    Example:
        >>> import torch
        >>> y, state = SLSTMCell(3, 4, num_heads=2)(torch.zeros(2, 3))
        >>> y.shape, state.m.shape
        (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    State = SLSTMState
    memory = {"bias": (0, 1, 0, 0)}

    def __init__(self, input_size: int, hidden_size: int, num_heads: int = 1):
        if num_heads < 1 or hidden_size % num_heads:
            raise OptionError(f"num_heads must divide hidden_size = {hidden_size}", received=repr(num_heads))
        super().__init__(input_size, hidden_size, K=num_heads, P=hidden_size // num_heads)
        self.num_heads = num_heads
        self.weight_ih = self.weight("4H D")
        self.weight_hh = self.weight("4K P P", init=_each_orthogonal)
        self.bias = self.weight("4H", init=(0, 1, 0, 0))

    def initial_state(self, batch_size: int, *, like: Tensor | None = None) -> SLSTMState:
        """Zeros, but for the stabiliser, which stands below whatever the first frame brings."""
        first = super().initial_state(batch_size, like=like)
        return first._replace(m=torch.full_like(first.m, _LEAST))

    def step(self, x: Tensor, state: SLSTMState) -> tuple[Tensor, SLSTMState]:
        """One frame: ``x (B, D)``, each leaf of the state ``(B, H)``."""
        heads = state.h.unflatten(-1, (self.num_heads, -1))
        of_h = [torch.einsum("bkp,kqp->bkq", heads, R).flatten(-2) for R in self.weight_hh.chunk(4)]
        of_x = linear(x, self.weight_ih, self.bias).chunk(4, -1)
        i, f, z, o = (a + b for a, b in zip(of_x, of_h, strict=True))
        f = logsigmoid(f) + state.m
        m = torch.maximum(f, i)
        i, f = (i - m).exp(), (f - m).exp()
        c = f * state.c + i * z.tanh()
        n = f * state.n + i
        h = o.sigmoid() * c / n
        return h, SLSTMState(h, c, n, m)


def _each_orthogonal(weight: Tensor) -> None:
    for block in weight:
        torch.nn.init.orthogonal_(block)
