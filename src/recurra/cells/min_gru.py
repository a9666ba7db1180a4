"""minGRU: the math of one step, and nothing else."""

from torch import Tensor
from torch.nn.functional import linear

from recurra.cells.base import Cell, HiddenState


class MinGRUCell(Cell[HiddenState]):
    r"""Minimal gated unit that is linear in its state (Feng et al., 2024, "Were RNNs all we needed?", section 3.1).

    .. math::
        z, n &= W_{ih} x_t + b \\
        h_t &= (1 - \sigma(z)) \odot h_{t-1} + \sigma(z) \odot n \\
        y_t &= W_{hy} h_t + b_y

    Gates read the input alone, so the recurrence is linear in its state and may be run in parallel over time; the
    output projection, which the paper puts behind the cell, feeds no later state and is made for all frames at once.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.

    Weights: ``weight_ih (2H, D)``, ``bias (2H,)``, ``weight_hy (H, H)``, ``bias_y (H,)``.

    Example:
        >>> import torch
        >>> y, state = MinGRUCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape
        torch.Size([2, 4])
    """

    State = HiddenState
    memory = {"bias": (-1, 0)}

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight_ih = self.weight("2H D")
        self.weight_hy = self.weight("H H")
        self.bias = self.weight("2H")
        self.bias_y = self.weight("H")

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """One frame: ``x (B, D)``, ``state.h (B, H)``."""
        z, n = linear(x, self.weight_ih, self.bias).chunk(2, -1)
        z = z.sigmoid()
        h = (1 - z) * state.h + z * n
        return linear(h, self.weight_hy, self.bias_y), HiddenState(h)
