"""Simple recurrent unit: the math of one step, and nothing else."""

import math
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import linear

from recurra.cells.base import Cell

# Keeps the variance of what the highway adds at first, where its gate is open by half (Lei et al., 2018, section 3.2).
_SKIP = math.sqrt(3)


class SRUState(NamedTuple):
    """What an SRU carries from frame to frame."""

    c: Tensor  # (B, H) cell state


class SRUCell(Cell[SRUState]):
    r"""Simple recurrent unit: no matrix product reads the state (Lei et al., 2018, equations 3 to 6).

    .. math::
        u, f, r, s &= W_{ih} x_t \\
        f' &= \sigma(f + v_f \odot c_{t-1} + b_f) \\
        c_t &= f' \odot c_{t-1} + (1 - f') \odot u \\
        r' &= \sigma(r + v_r \odot c_{t-1} + b_r) \\
        y_t &= r' \odot c_t + (1 - r') \odot \alpha s

    The highway carries the input itself where D = H: then :math:`s = x_t` and has no weights. :math:`\alpha = \sqrt 3`.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.

    Weights: ``weight_ih (4H, D)`` in the order u f r s, ``(3H, D)`` where D = H; ``weight_c (2H,)`` and ``bias (2H,)``
    in the order f r.

    Example:
        >>> import torch
        >>> y, state = SRUCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape, state.c.shape
        (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    State = SRUState
    memory = {"bias": (1, 0)}

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight_ih = self.weight("3H D" if input_size == hidden_size else "4H D")
        self.weight_c = self.weight("2H")
        self.bias = self.weight("2H")

    def step(self, x: Tensor, state: SRUState) -> tuple[Tensor, SRUState]:
        """One frame: ``x (B, D)``, ``state.c (B, H)``."""
        u, f, r, *s = linear(x, self.weight_ih).split(self.hidden_size, -1)
        (v_f, v_r), (b_f, b_r) = self.weight_c.chunk(2), self.bias.chunk(2)
        f = (f + v_f * state.c + b_f).sigmoid()
        r = (r + v_r * state.c + b_r).sigmoid()
        c = f * state.c + (1 - f) * u
        y = r * c + (1 - r) * _SKIP * (s[0] if s else x)
        return y, SRUState(c)
