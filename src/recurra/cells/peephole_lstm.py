"""LSTM with peepholes: the math of one step, and nothing else."""

from torch import Tensor
from torch.nn.functional import linear

from recurra.cells.base import Cell
from recurra.cells.lstm import LSTMState


class PeepholeLSTMCell(Cell[LSTMState]):
    r"""LSTM whose gates see the cell state (Gers & Schmidhuber, 2000; equations as in Greff et al., 2017, section II).

    .. math::
        i &= \sigma(W_i x_t + U_i h_{t-1} + p_i \odot c_{t-1} + b_i) \\
        f &= \sigma(W_f x_t + U_f h_{t-1} + p_f \odot c_{t-1} + b_f) \\
        c_t &= f \odot c_{t-1} + i \odot \tanh(W_g x_t + U_g h_{t-1} + b_g) \\
        o &= \sigma(W_o x_t + U_o h_{t-1} + p_o \odot c_t + b_o) \\
        h_t &= o \odot \tanh(c_t), \qquad y_t = h_t

    The output gate looks at the new cell state, the others at the old one. Without peepholes this is
    :class:`LSTMCell`, where it starts: they are zero at first.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.

    Weights: ``weight_ih (4H, D)``, ``weight_hh (4H, H)``, ``bias (4H,)`` in the order i f g o, ``peephole (3H,)`` in
    the order i f o.

    Example:
        >>> import torch
        >>> y, state = PeepholeLSTMCell(3, 4)(torch.zeros(2, 3))
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
        self.peephole = self.weight("3H")

    def step(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """One frame: ``x (B, D)``, ``state.h`` and ``state.c`` ``(B, H)``."""
        i, f, g, o = (linear(x, self.weight_ih, self.bias) + linear(state.h, self.weight_hh)).chunk(4, dim=-1)
        p_i, p_f, p_o = self.peephole.chunk(3)
        c = (f + p_f * state.c).sigmoid() * state.c + (i + p_i * state.c).sigmoid() * g.tanh()
        h = (o + p_o * c).sigmoid() * c.tanh()
        return h, LSTMState(h, c)
