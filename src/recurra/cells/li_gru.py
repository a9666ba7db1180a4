"""Light GRU: the math of one step, and nothing else."""

from torch import Tensor
from torch.nn.functional import linear

from recurra.cells.base import Cell, HiddenState


class LiGRUCell(Cell[HiddenState]):
    r"""Light gated recurrent unit (Ravanelli et al., 2018, equations 8 to 10): no reset gate, a rectified candidate.

    .. math::
        z, n &= W_{ih} x_t + b + W_{hh} h_{t-1} \\
        h_t &= \sigma(z) \odot h_{t-1} + (1 - \sigma(z)) \odot \mathrm{relu}(n), \qquad y_t = h_t

    The paper normalises the product with x over the batch; a step knows no batch, so put a normalisation before the
    layer where the candidate grows too large.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.

    Weights: ``weight_ih (2H, D)``, ``weight_hh (2H, H)`` orthogonal gate by gate, ``bias (2H,)``, in the order z n.

    Example:
        >>> import torch
        >>> y, state = LiGRUCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape
        torch.Size([2, 4])
    """

    State = HiddenState
    memory = {"bias": (1, 0)}

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight_ih = self.weight("2H D")
        self.weight_hh = self.weight("2H H", init="orthogonal")
        self.bias = self.weight("2H")

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """One frame: ``x (B, D)``, ``state.h (B, H)``."""
        z, n = (linear(x, self.weight_ih, self.bias) + linear(state.h, self.weight_hh)).chunk(2, -1)
        z = z.sigmoid()
        h = z * state.h + (1 - z) * n.relu()
        return h, HiddenState(h)
