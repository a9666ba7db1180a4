"""LSTM with a forget gate: the math of one step, and nothing else."""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import linear

from recurra.cells.base import Cell


class LSTMState(NamedTuple):
    """What an LSTM carries from frame to frame."""

    h: Tensor  # (B, H) hidden state: what the next layer reads
    c: Tensor  # (B, H) cell state: what the forget gate keeps


class LSTMCell(Cell[LSTMState]):
    r"""Long short-term memory (Hochreiter & Schmidhuber, 1997; forget gate: Gers et al., 2000).

    .. math::
        i, f, g, o &= W_{ih} x_t + b + W_{hh} h_{t-1} \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= \sigma(o) \odot \tanh(c_t), \qquad y_t = h_t

    Gate order and weight shapes are those of :class:`torch.nn.LSTM`; there is one bias, not two.
    The forget gate's bias starts at 1 (Jozefowicz et al., 2015), the recurrent weights are orthogonal gate by gate.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.

    Weights: ``weight_ih (4H, D)``, ``weight_hh (4H, H)``, ``bias (4H,)``.

    Example:
        >>> import torch
        >>> y, state = LSTMCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape, state.c.shape
        (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    State = LSTMState
    memory = {"bias": (-1, 1, 0, 0)}

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight_ih = self.weight("4H D")
        self.weight_hh = self.weight("4H H", init="orthogonal")
        self.bias = self.weight("4H", init=(0, 1, 0, 0))

    def step(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """One frame: ``x (B, D)``, ``state.h`` and ``state.c`` ``(B, H)``."""
        gates = linear(x, self.weight_ih, self.bias) + linear(state.h, self.weight_hh)
        i, f, g, o = gates.chunk(4, dim=-1)
        c = f.sigmoid() * state.c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h, LSTMState(h, c)
