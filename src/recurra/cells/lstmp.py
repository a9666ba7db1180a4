"""LSTM with a projected hidden state: the math of one step, and nothing else."""

from typing import Annotated, NamedTuple

from torch import Tensor
from torch.nn.functional import linear

from recurra.cells.base import Cell


class LSTMPState(NamedTuple):
    """What a projected LSTM carries from frame to frame: two leaves of unequal width."""

    h: Annotated[Tensor, "P"]  # (B, P) projected hidden state: what the next layer reads
    c: Tensor  # (B, H) cell state


class LSTMPCell(Cell[LSTMPState]):
    r"""LSTM with a recurrent projection (Sak et al., 2014).

    .. math::
        i, f, g, o &= W_{ih} x_t + b + W_{hh} h_{t-1} \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= W_{hr} (\sigma(o) \odot \tanh(c_t)), \qquad y_t = h_t

    Weight shapes are those of :class:`torch.nn.LSTM` with ``proj_size``; there is one bias, not two.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.
        proj_size: P, the width of the projected state; half of the units where it is left out.

    Weights: ``weight_ih (4H, D)``, ``weight_hh (4H, P)``, ``weight_hr (P, H)``, ``bias (4H,)`` (forget gate 1).

    Example:
        >>> import torch
        >>> y, state = LSTMPCell(3, 8, proj_size=5)(torch.zeros(2, 3))
        >>> y.shape, state.c.shape
        (torch.Size([2, 5]), torch.Size([2, 8]))
    """

    State = LSTMPState
    memory = {"bias": (-1, 1, 0, 0)}

    def __init__(self, input_size: int, hidden_size: int, proj_size: int | None = None):
        super().__init__(input_size, hidden_size, P=max(hidden_size // 2, 1) if proj_size is None else proj_size)
        self.weight_ih = self.weight("4H D")
        self.weight_hh = self.weight("4H P", init="orthogonal")
        self.weight_hr = self.weight("P H", init="orthogonal")
        self.bias = self.weight("4H", init=(0, 1, 0, 0))

    def step(self, x: Tensor, state: LSTMPState) -> tuple[Tensor, LSTMPState]:
        """One frame: ``x (B, D)``, ``state.h (B, P)``, ``state.c (B, H)``."""
        gates = linear(x, self.weight_ih, self.bias) + linear(state.h, self.weight_hh)
        i, f, g, o = gates.chunk(4, dim=-1)
        c = f.sigmoid() * state.c + i.sigmoid() * g.tanh()
        h = linear(o.sigmoid() * c.tanh(), self.weight_hr)
        return h, LSTMPState(h, c)
