"""minLSTM: the math of one step, and nothing else."""

from torch import Tensor
from torch.nn.functional import linear, softplus

from recurra.cells.base import Cell, HiddenState


class MinLSTMCell(Cell[HiddenState]):
    r"""Minimal LSTM that is linear in its state (Feng et al., 2024, "Were RNNs all we needed?", section 3.2).

    .. math::
        i, f, g &= W_{ih} x_t + b \\
        f' &= \sigma(f) / (\sigma(f) + \sigma(i)) = \sigma(\mathrm{softplus}(-i) - \mathrm{softplus}(-f)) \\
        h_t &= f' \odot h_{t-1} + (1 - f') \odot g \\
        y_t &= W_{hy} h_t + b_y

    Gates read the input alone and sum to one, so the recurrence is linear in its state and its scale does not depend
    on time. The output projection, which the paper puts behind the cell, feeds no later state.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.

    Weights: ``weight_ih (3H, D)``, ``bias (3H,)`` in the order i f g, ``weight_hy (H, H)``, ``bias_y (H,)``.

    Example:
        >>> import torch
        >>> y, state = MinLSTMCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape
        torch.Size([2, 4])
    """

    State = HiddenState
    memory = {"bias": (-1, 1, 0)}

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight_ih = self.weight("3H D")
        self.weight_hy = self.weight("H H")
        self.bias = self.weight("3H")
        self.bias_y = self.weight("H")

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """One frame: ``x (B, D)``, ``state.h (B, H)``."""
        i, f, g = linear(x, self.weight_ih, self.bias).chunk(3, -1)
        f = (softplus(-i) - softplus(-f)).sigmoid()
        h = f * state.h + (1 - f) * g
        return linear(h, self.weight_hy, self.bias_y), HiddenState(h)
