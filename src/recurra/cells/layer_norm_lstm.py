"""LSTM with layer normalisation inside: the math of one step, and nothing else."""

from torch import Tensor
from torch.nn.functional import layer_norm, linear

from recurra.cells.base import Cell
from recurra.cells.lstm import LSTMState


class LayerNormLSTMCell(Cell[LSTMState]):
    r"""LSTM with layer normalisation (Ba, Kiros & Hinton, 2016, equations 20 to 22).

    .. math::
        i, f, g, o &= \mathrm{LN}(W_{ih} x_t; \gamma_x) + \mathrm{LN}(W_{hh} h_{t-1}; \gamma_h) + b \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= \sigma(o) \odot \tanh(\mathrm{LN}(c_t; \gamma_c, \beta_c)), \qquad y_t = h_t

    Each normalisation runs over all its units. A gain of 1 makes the recurrence chaotic; the gains start at 0.1
    (Cooijmans et al., 2017, section 5.1, found the same for batch normalisation).

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.
        eps: added to each variance.

    Weights: ``weight_ih (4H, D)``, ``weight_hh (4H, H)``, ``gain_x``, ``gain_h``, ``bias`` ``(4H,)``,
    ``gain_c``, ``bias_c`` ``(H,)``.

    Example:
        >>> import torch
        >>> y, state = LayerNormLSTMCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape
        torch.Size([2, 4])
    """

    State = LSTMState
    memory = {"bias": (-1, 1, 0, 0)}

    def __init__(self, input_size: int, hidden_size: int, eps: float = 1e-5):
        super().__init__(input_size, hidden_size)
        self.eps = eps
        self.weight_ih = self.weight("4H D")
        self.weight_hh = self.weight("4H H", init="orthogonal")
        self.gain_x = self.weight("4H", init=(0.1,) * 4)
        self.gain_h = self.weight("4H", init=(0.1,) * 4)
        self.gain_c = self.weight("H", init="ones")
        self.bias = self.weight("4H", init=(0, 1, 0, 0))
        self.bias_c = self.weight("H")

    def step(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """One frame: ``x (B, D)``, ``state.h`` and ``state.c`` ``(B, H)``."""
        H, eps = self.hidden_size, self.eps
        from_x = layer_norm(linear(x, self.weight_ih), (4 * H,), self.gain_x, self.bias, eps)
        from_h = layer_norm(linear(state.h, self.weight_hh), (4 * H,), self.gain_h, None, eps)
        i, f, g, o = (from_x + from_h).chunk(4, dim=-1)
        c = f.sigmoid() * state.c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * layer_norm(c, (H,), self.gain_c, self.bias_c, eps).tanh()
        return h, LSTMState(h, c)
