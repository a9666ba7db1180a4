"""Minimal gated unit: the math of one step, and nothing else."""

from torch import Tensor
from torch.nn.functional import linear

from recurra.cells.base import Cell, HiddenState


class MGUCell(Cell[HiddenState]):
    r"""Minimal gated unit: a GRU with one gate for both of its tasks (Zhou et al., 2016, equations 6 to 8).

    .. math::
        f &= \sigma(W_f x_t + U_f h_{t-1} + b_f) \\
        n &= \tanh(W_n x_t + U_n (f \odot h_{t-1}) + b_n) \\
        h_t &= (1 - f) \odot h_{t-1} + f \odot n, \qquad y_t = h_t

    Two matrix products depend on one another in each frame.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.

    Weights: ``weight_ih (2H, D)``, ``weight_hh (2H, H)`` orthogonal gate by gate, ``bias (2H,)``, in the order f n.

    Example:
        >>> import torch
        >>> y, state = MGUCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape
        torch.Size([2, 4])
    """

    State = HiddenState
    memory = {"bias": (-1, 0)}

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight_ih = self.weight("2H D")
        self.weight_hh = self.weight("2H H", init="orthogonal")
        self.bias = self.weight("2H")

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """One frame: ``x (B, D)``, ``state.h (B, H)``."""
        x_f, x_n = linear(x, self.weight_ih, self.bias).chunk(2, -1)
        U_f, U_n = self.weight_hh.chunk(2)
        f = (x_f + linear(state.h, U_f)).sigmoid()
        n = (x_n + linear(f * state.h, U_n)).tanh()
        h = (1 - f) * state.h + f * n
        return h, HiddenState(h)
