"""LSTM with coupled gates: the math of one step, and nothing else."""

from torch import Tensor
from torch.nn.functional import linear

from recurra.cells.base import Cell
from recurra.cells.lstm import LSTMState


class CoupledLSTMCell(Cell[LSTMState]):
    r"""LSTM that forgets as much as it takes in: CIFG, one gate fewer (Greff et al., 2017, section III).

    .. math::
        i, g, o &= W_{ih} x_t + b + W_{hh} h_{t-1} \\
        c_t &= (1 - \sigma(i)) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= \sigma(o) \odot \tanh(c_t), \qquad y_t = h_t

    The bias of the input gate starts at -1, which is a forget gate that starts at 1.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.

    Weights: ``weight_ih (3H, D)``, ``weight_hh (3H, H)`` orthogonal gate by gate, ``bias (3H,)``.

    Example:
        >>> import torch
        >>> y, state = CoupledLSTMCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape, state.c.shape
        (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    State = LSTMState
    memory = {"bias": (-1, 0, 0)}

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight_ih = self.weight("3H D")
        self.weight_hh = self.weight("3H H", init="orthogonal")
        self.bias = self.weight("3H", init=(-1, 0, 0))

    def step(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """One frame: ``x (B, D)``, ``state.h`` and ``state.c`` ``(B, H)``."""
        i, g, o = (linear(x, self.weight_ih, self.bias) + linear(state.h, self.weight_hh)).chunk(3, dim=-1)
        i = i.sigmoid()
        c = (1 - i) * state.c + i * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h, LSTMState(h, c)
