"""Real-gated linear recurrent unit: the math of one step, and nothing else."""

import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

from recurra.cells.base import Cell, HiddenState

_C = 8.0  # the paper's constant: how much a gate can shorten the memory
_LEAST = 1e-30  # under the root: its slope at 0, where a gate has shut altogether, is infinite


def _slow(rate: Tensor, least: float = 0.9, most: float = 0.999) -> Tensor:
    """Fill Λ so that :math:`\\sigma(\\Lambda)^c` is uniform between two numbers (De et al., 2024, section 2.4)."""
    kept = torch.rand_like(rate) * (most - least) + least
    return rate.copy_(-torch.expm1(-kept.log() / _C).log())


class RGLRUCell(Cell[HiddenState]):
    r"""Real-gated linear recurrent unit, the recurrence of Griffin (De et al., 2024, section 2.4).

    .. math::
        u_t &= W_{ih} x_t + b \\
        r, i &= \sigma(W_g u_t + b_g) \\
        a_t &= \sigma(\Lambda)^{c r}, \qquad c = 8 \\
        h_t &= a_t \odot h_{t-1} + \sqrt{1 - a_t^2} \odot (i \odot u_t), \qquad y_t = h_t

    The first line is the linear layer that the paper's block has before the recurrence (without its convolution). Gates
    read the input alone, so the recurrence is linear in its state. :math:`\sigma(\Lambda)^c` starts between 0.9 and
    0.999.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.

    Weights: ``weight_ih (H, D)``, ``bias (H,)``, ``weight_gates (2H, H)``, ``bias_gates (2H,)`` in the order r i,
    ``rate (H,)``: Λ.

    Example:
        >>> import torch
        >>> y, state = RGLRUCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape
        torch.Size([2, 4])
    """

    State = HiddenState

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight_ih = self.weight("H D")
        self.bias = self.weight("H")
        self.weight_gates = self.weight("2H H")
        self.bias_gates = self.weight("2H")
        self.rate = self.weight("H", init=_slow)

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """One frame: ``x (B, D)``, ``state.h (B, H)``."""
        u = linear(x, self.weight_ih, self.bias)
        r, i = linear(u, self.weight_gates, self.bias_gates).sigmoid().chunk(2, -1)
        log_a = -_C * softplus(-self.rate) * r
        h = log_a.exp() * state.h + (_LEAST - torch.expm1(2 * log_a)).sqrt() * (i * u)
        return h, HiddenState(h)
