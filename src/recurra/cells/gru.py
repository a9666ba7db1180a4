"""The gated recurrent unit, in both its forms: the math of one step, and nothing else."""

from torch import Tensor
from torch.nn.functional import linear

from recurra.cells.base import Cell, HiddenState
from recurra.errors import UnknownNameError


class GRUCell(Cell[HiddenState]):
    r"""Gated recurrent unit (Cho et al., 2014).

    .. math::
        r, z &= \sigma(W_{ih} x_t + b + W_{hh} h_{t-1}) \quad\text{(the blocks of r and z)} \\
        n &= \tanh(W_n x_t + b_n + r \odot (U_n h_{t-1} + b_{hn})) \quad\text{reset after the product, as in torch} \\
        n &= \tanh(W_n x_t + b_n + U_n (r \odot h_{t-1}) + b_{hn}) \quad\text{reset before it, as the paper} \\
        h_t &= (1 - z) \odot n + z \odot h_{t-1}, \qquad y_t = h_t

    Gate order and weight shapes are those of :class:`torch.nn.GRU`. With the reset before the product, two matrix
    products depend on one another in each frame.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.
        reset: ``"after"`` or ``"before"`` the recurrent product.

    Weights: ``weight_ih (3H, D)``, ``weight_hh (3H, H)`` orthogonal gate by gate, ``bias (3H,)``, ``bias_hn (H,)``.

    Raises:
        UnknownNameError: another value of `reset`.

    Example:
        >>> import torch
        >>> y, state = GRUCell(3, 4, reset="before")(torch.zeros(2, 3))
        >>> y.shape
        torch.Size([2, 4])
    """

    State = HiddenState
    memory = {"bias": (0, 1, 0)}

    def __init__(self, input_size: int, hidden_size: int, reset: str = "after"):
        super().__init__(input_size, hidden_size)
        if reset not in ("after", "before"):
            raise UnknownNameError("place of the reset", reset, ("after", "before"))
        self.reset = reset
        self.weight_ih = self.weight("3H D")
        self.weight_hh = self.weight("3H H", init="orthogonal")
        self.bias = self.weight("3H")
        self.bias_hn = self.weight("H")

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """One frame: ``x (B, D)``, ``state.h (B, H)``."""
        h, H = state.h, self.hidden_size
        x_rz, x_n = linear(x, self.weight_ih, self.bias).split([2 * H, H], -1)
        U_rz, U_n = self.weight_hh.split([2 * H, H])
        r, z = (x_rz + linear(h, U_rz)).sigmoid().chunk(2, -1)
        h_n = r * linear(h, U_n, self.bias_hn) if self.reset == "after" else linear(r * h, U_n, self.bias_hn)
        n = (x_n + h_n).tanh()
        h = (1 - z) * n + z * h
        return h, HiddenState(h)
