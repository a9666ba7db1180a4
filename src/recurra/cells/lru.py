"""Linear recurrent unit: the math of one step, and nothing else."""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.nn.init import uniform_

from recurra.cells.base import Cell


def _ring(nu: Tensor, least: float = 0.9, most: float = 0.999) -> Tensor:
    """Fill ν so that the moduli of λ lie evenly on the ring between two radii (Orvieto et al., 2023, lemma 3.2)."""
    square = torch.rand_like(nu) * (most**2 - least**2) + least**2
    return nu.copy_((-0.5 * square.log()).log())


class LRUState(NamedTuple):
    """What an LRU carries from frame to frame: one complex number a unit."""

    re: Tensor  # (B, H) real part
    im: Tensor  # (B, H) imaginary part


class LRUCell(Cell[LRUState]):
    r"""Linear recurrent unit: a complex diagonal recurrence (Orvieto et al., 2023, section 3).

    .. math::
        \lambda &= \exp(-e^{\nu} + i e^{\theta}), \qquad \gamma = \sqrt{1 - |\lambda|^2} \\
        h_t &= \lambda \odot h_{t-1} + \gamma \odot (B x_t) \qquad h_t \in \mathbb{C}^H \\
        y_t &= \mathrm{Re}(C h_t) + D x_t

    Complex numbers are pairs of real ones here. The modulus of λ is below 1 whatever ν is, so the recurrence is
    stable; γ keeps the state as large as the input. The paper also learns γ, from this value: B can make up for that.
    λ starts with a modulus between 0.9 and 0.999 and a phase between 0 and π/10. Stack several, with a nonlinearity
    between them.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.

    Weights: ``nu``, ``theta`` ``(H,)``; ``weight_ih (2H, D)``: B, its real part above its imaginary one;
    ``weight_hy (H, 2H)``: C, real beside imaginary; ``weight_iy (H, D)``: D.

    Example:
        >>> import torch
        >>> y, state = LRUCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape, state.im.shape
        (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    State = LRUState

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.nu = self.weight("H", init=_ring)
        self.theta = self.weight("H", init=functools.partial(uniform_, a=-6.0, b=math.log(math.pi / 10)))
        self.weight_ih = self.weight("2H D")
        self.weight_hy = self.weight("H 2H")
        self.weight_iy = self.weight("H D")

    def step(self, x: Tensor, state: LRUState) -> tuple[Tensor, LRUState]:
        """One frame: ``x (B, D)``, ``state.re`` and ``state.im`` ``(B, H)``."""
        decay, angle = self.nu.exp(), self.theta.exp()
        radius, gamma = (-decay).exp(), (-torch.expm1(-2 * decay)).sqrt()  # 1 - radius² would be 0 for a small decay
        a, b = radius * angle.cos(), radius * angle.sin()
        x_re, x_im = linear(x, self.weight_ih).chunk(2, -1)
        re = a * state.re - b * state.im + gamma * x_re
        im = a * state.im + b * state.re + gamma * x_im
        C_re, C_im = self.weight_hy.chunk(2, -1)
        return linear(re, C_re) - linear(im, C_im) + linear(x, self.weight_iy), LRUState(re, im)
