"""Independently recurrent network: the math of one step, and nothing else."""

import functools

from torch import Tensor
from torch.nn.functional import linear
from torch.nn.init import uniform_

from recurra.cells.base import Cell, HiddenState


class IndRNNCell(Cell[HiddenState]):
    r"""Independently recurrent units: each one reads its own past alone (Li et al., 2018, equation 2).

    .. math::
        h_t = \mathrm{relu}(W_{ih} x_t + u \odot h_{t-1} + b), \qquad y_t = h_t

    What a unit keeps over T frames goes with u to the power of T, so u starts uniformly between 0 and 1, as in the
    paper; there it is held below the T-th root of 2 in training. Units meet in the next layer: stack several.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.

    Weights: ``weight_ih (H, D)``, ``weight_hh (H,)``, ``bias (H,)``.

    Example:
        >>> import torch
        >>> y, state = IndRNNCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape
        torch.Size([2, 4])
    """

    State = HiddenState

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight_ih = self.weight("H D")
        self.weight_hh = self.weight("H", init=functools.partial(uniform_, a=0.0, b=1.0))
        self.bias = self.weight("H")

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """One frame: ``x (B, D)``, ``state.h (B, H)``."""
        h = (linear(x, self.weight_ih, self.bias) + self.weight_hh * state.h).relu()
        return h, HiddenState(h)
