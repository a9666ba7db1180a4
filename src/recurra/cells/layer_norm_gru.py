"""GRU with layer normalisation inside: the math of one step, and nothing else."""

from torch import Tensor
from torch.nn.functional import layer_norm, linear

from recurra.cells.base import Cell, HiddenState


class LayerNormGRUCell(Cell[HiddenState]):
    r"""GRU with layer normalisation (Ba, Kiros & Hinton, 2016, supplement, equations of the GRU).

    .. math::
        r, z &= \sigma(\mathrm{LN}(W_{rz} x_t; \gamma_x) + \mathrm{LN}(U_{rz} h_{t-1}; \gamma_h) + b_{rz}) \\
        n &= \tanh(\mathrm{LN}(W_n x_t; \gamma_x, b_n) + r \odot \mathrm{LN}(U_n h_{t-1}; \gamma_h, b_{hn})) \\
        h_t &= (1 - z) \odot n + z \odot h_{t-1}, \qquad y_t = h_t

    The gates and the candidate are normalised apart, each over all its units. The gains start at 0.1, as in
    :class:`LayerNormLSTMCell`.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.
        eps: added to each variance.

    Weights: ``weight_ih (3H, D)``, ``weight_hh (3H, H)``, ``gain_x``, ``gain_h``, ``bias`` ``(3H,)``, ``bias_hn (H,)``,
    in the order r z n.

    Example:
        >>> import torch
        >>> y, state = LayerNormGRUCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape
        torch.Size([2, 4])
    """

    State = HiddenState
    memory = {"bias": (0, 1, 0)}

    def __init__(self, input_size: int, hidden_size: int, eps: float = 1e-5):
        super().__init__(input_size, hidden_size)
        self.eps = eps
        self.weight_ih = self.weight("3H D")
        self.weight_hh = self.weight("3H H", init="orthogonal")
        self.gain_x = self.weight("3H", init=(0.1,) * 3)
        self.gain_h = self.weight("3H", init=(0.1,) * 3)
        self.bias = self.weight("3H")
        self.bias_hn = self.weight("H")

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """One frame: ``x (B, D)``, ``state.h (B, H)``."""
        h, H, eps = state.h, self.hidden_size, self.eps
        x_rz, x_n = linear(x, self.weight_ih).split([2 * H, H], -1)
        h_rz, h_n = linear(h, self.weight_hh).split([2 * H, H], -1)
        (gx_rz, gx_n), (gh_rz, gh_n) = self.gain_x.split([2 * H, H]), self.gain_h.split([2 * H, H])
        b_rz, b_n = self.bias.split([2 * H, H])
        rz = layer_norm(x_rz, (2 * H,), gx_rz, b_rz, eps) + layer_norm(h_rz, (2 * H,), gh_rz, None, eps)
        r, z = rz.sigmoid().chunk(2, -1)
        n = layer_norm(x_n, (H,), gx_n, b_n, eps) + r * layer_norm(h_n, (H,), gh_n, self.bias_hn, eps)
        h = (1 - z) * n.tanh() + z * h
        return h, HiddenState(h)
