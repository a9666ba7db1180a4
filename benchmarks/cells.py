"""Cells that the package does not know: as a user would write them, and what is left of a recurrence without products.

They are not in :data:`recurra.cells.CELLS`, and nothing in the engine has seen them; ``benchmarks/conformance.py`` is
their gate.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

from recurra.cells import CELLS, Cell, HiddenState, LSTMState


class BoundedIntegratorCell(Cell[LSTMState]):
    r"""A user's cell: a gated integrator whose memory saturates, with a gate that looks at how full it is.

    .. math::
        f, u, o &= W_{ih} x_t + b + W_{hh} h_{t-1} \\
        c_t &= \sigma(f) \odot c_{t-1} + (1 - \sigma(f)) \odot \tanh(u) \odot (1 - \tfrac12 |c_{t-1}|) \\
        h_t &= \sigma(o + p \odot c_t) \odot c_t / \sqrt{1 + c_t^2}
    """

    State = LSTMState

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight_ih = self.weight("3H D")
        self.weight_hh = self.weight("3H H", init="orthogonal")
        self.bias = self.weight("3H", init=(1, 0, 0))
        self.peephole = self.weight("H", init="ones")

    def step(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """One frame: ``x (B, D)``, ``state.h`` and ``state.c`` ``(B, H)``."""
        f, u, o = (linear(x, self.weight_ih, self.bias) + linear(state.h, self.weight_hh)).chunk(3, -1)
        f = f.sigmoid()
        c = f * state.c + (1 - f) * u.tanh() * (1 - 0.5 * state.c.abs())
        h = (o + self.peephole * c).sigmoid() * c / (1 + c * c).sqrt()
        return h, LSTMState(h, c)


class MinGRULoop(Cell[HiddenState]):
    """minGRU between its products: a frame is what the hoisted product leaves in memory, ``z n (2H)``; y is h."""

    State = HiddenState

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """One frame: ``x (B, 2H)``, ``state.h (B, H)``."""
        z, n = x.chunk(2, -1)
        z = z.sigmoid()
        h = (1 - z) * state.h + z * n
        return h, HiddenState(h)


class RGLRULoop(Cell[HiddenState]):
    """RG-LRU behind its products: a frame is what they leave in memory, ``r i u (3H)``; y is h."""

    State = HiddenState

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.rate = self.weight("H", init=lambda rate: rate.uniform_(4.0, 9.0))

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """One frame: ``x (B, 3H)``, ``state.h (B, H)``."""
        r, i, u = x.chunk(3, -1)
        log_a = -8.0 * softplus(-self.rate) * r.sigmoid()
        h = log_a.exp() * state.h + (-torch.expm1(2 * log_a)).sqrt() * (i.sigmoid() * u)
        return h, HiddenState(h)


OWN: dict[str, type[Cell[Any]]] = {
    "bounded_integrator": BoundedIntegratorCell,
    "min_gru_loop": MinGRULoop,
    "rg_lru_loop": RGLRULoop,
}
PARTS = {"min_gru_loop": 2, "rg_lru_loop": 3}  # of so many values a unit is a frame of theirs made

ALL: dict[str, type[Cell[Any]]] = {**CELLS, **OWN}
