"""Quasi-recurrent network: the math of one step, and nothing else."""

from typing import Annotated, NamedTuple

from torch import Tensor
from torch.nn.functional import linear

from recurra.cells.base import Cell


class QRNNState(NamedTuple):
    """What a QRNN carries from frame to frame."""

    c: Tensor  # (B, H) cell state
    q: Annotated[Tensor, "3H"]  # the half of the next frame's convolution that reads this frame


class QRNNCell(Cell[QRNNState]):
    r"""Quasi-recurrent network: a convolution over two frames, and a pooling over time (Bradbury et al., 2017).

    .. math::
        q_t &= W^{(1)} x_t \\
        g, f, o &= W^{(2)} x_t + q_{t-1} + b \\
        c_t &= \sigma(f) \odot c_{t-1} + (1 - \sigma(f)) \odot \tanh(g) \\
        y_t &= \sigma(o) \odot c_t

    This is the paper's fo-pooling (equation 4) with filters of width 2. What the convolution adds up from the frame
    before is carried instead of that frame, so that both of its products are made for all frames at once.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.

    Weights: ``weight_ih (3H, D)`` for this frame, ``weight_before (3H, D)`` for the one before, ``bias (3H,)``, in the
    order g f o.

    Example:
        >>> import torch
        >>> y, state = QRNNCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape, state.c.shape, state.q.shape
        (torch.Size([2, 4]), torch.Size([2, 4]), torch.Size([2, 12]))
    """

    State = QRNNState
    memory = {"bias": (0, 1, 0)}

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight_ih = self.weight("3H D")
        self.weight_before = self.weight("3H D")
        self.bias = self.weight("3H")

    def step(self, x: Tensor, state: QRNNState) -> tuple[Tensor, QRNNState]:
        """One frame: ``x (B, D)``, ``state.c (B, H)``, ``state.q (B, 3H)``."""
        g, f, o = (linear(x, self.weight_ih, self.bias) + state.q).chunk(3, -1)
        f = f.sigmoid()
        c = f * state.c + (1 - f) * g.tanh()
        return o.sigmoid() * c, QRNNState(c, linear(x, self.weight_before))
