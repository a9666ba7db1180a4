"""The simple recurrent network: the math of one step, and nothing else."""

from torch import Tensor
from torch.nn.functional import linear

from recurra.cells.base import Cell, HiddenState
from recurra.errors import UnknownNameError

NONLINEARITIES = {"tanh": Tensor.tanh, "relu": Tensor.relu}


class RNNCell(Cell[HiddenState]):
    r"""Simple recurrent network (Elman, 1990, "Finding structure in time").

    .. math::
        h_t = \varphi(W_{ih} x_t + W_{hh} h_{t-1} + b), \qquad y_t = h_t

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.
        nonlinearity: φ, ``"tanh"`` or ``"relu"`` (with which orthogonal recurrent weights matter most).

    Weights: ``weight_ih (H, D)``, ``weight_hh (H, H)`` orthogonal, ``bias (H,)`` zero; one bias, not torch's two.

    Raises:
        UnknownNameError: another nonlinearity.

    Example:
        >>> import torch
        >>> y, state = RNNCell(3, 4)(torch.zeros(2, 3))
        >>> y.shape, state.h.shape
        (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    State = HiddenState

    def __init__(self, input_size: int, hidden_size: int, nonlinearity: str = "tanh"):
        super().__init__(input_size, hidden_size)
        if nonlinearity not in NONLINEARITIES:
            raise UnknownNameError("nonlinearity", nonlinearity, NONLINEARITIES)
        self.nonlinearity = nonlinearity
        self.weight_ih = self.weight("H D")
        self.weight_hh = self.weight("H H", init="orthogonal")
        self.bias = self.weight("H")

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """One frame: ``x (B, D)``, ``state.h (B, H)``."""
        phi = NONLINEARITIES[self.nonlinearity]
        h = phi(linear(x, self.weight_ih, self.bias) + linear(state.h, self.weight_hh))
        return h, HiddenState(h)
