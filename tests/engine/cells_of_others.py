"""Cells that the package has never seen: they use the parts of the data model that no shipped cell needs yet."""

from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

from recurra.cells import Cell


class TwoState(NamedTuple):
    fast: Tensor
    slow: Tensor


class Unseen(Cell[TwoState]):
    """Two interacting states, a maximum, a division, a softplus of a weight, a product of [x, h], a sunk output."""

    State = TwoState

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.W = self.weight("2H D+H")
        self.decay = self.weight("H")
        self.mix = self.weight("H H")
        self.out = self.weight("H H+H")

    def step(self, x, state):
        a, b = linear(torch.cat([x, state.fast], -1), self.W).chunk(2, -1)
        rate = softplus(self.decay)
        fast = torch.maximum(a.tanh(), 0.5 * state.slow) / (1 + b * b)
        slow = (state.slow + rate * (fast @ self.mix).sigmoid()) / (1 + rate)
        return linear(torch.cat([fast, slow], -1), self.out), TwoState(fast, slow)


class Frame(NamedTuple):
    x: Tensor
    gap: Annotated[Tensor, "1"]  # time since the frame before


class Masks(NamedTuple):
    keep: Tensor
    scale: Annotated[Tensor, "1"]


class HeadState(NamedTuple):
    m: Annotated[Tensor, "N K"]
    n: Annotated[Tensor, "N 1"]


class Heads(Cell[HeadState]):
    """A state of heads, a block-diagonal product, constants of the sequence, and an input of two parts."""

    State, Constants, Input = HeadState, Masks, Frame

    def __init__(self, input_size, hidden_size, heads=2):
        super().__init__(input_size, hidden_size * heads, N=heads, K=hidden_size)
        self.heads = heads
        self.W = self.weight("H D")
        self.bias = self.weight("N K")
        self.blocks = self.weight("N K K")
        self.tau = self.weight("N K")

    def step(self, x, state, constants):
        v = linear(x.x * constants.scale, self.W) * constants.keep
        v = v.unflatten(-1, (self.heads, -1)) + self.bias
        decay = torch.exp(-softplus(self.tau) * x.gap.abs().unsqueeze(-1))
        mixed = torch.einsum("bgk,gjk->bgj", state.m, self.blocks)
        m = decay * state.m + (v + mixed).tanh()
        n = 0.9 * state.n + m.softmax(-1).amax(-1, keepdim=True)
        y = torch.nn.functional.rms_norm(m, (self.hidden_size // self.heads,), eps=1e-3) / (1 + n.abs())
        return y.flatten(1), HeadState(m, n)


class Carry(NamedTuple):
    h: Tensor
    before: Annotated[Tensor, "D"]  # the frame before: a state that depends on no state
    still: Tensor  # never changes


class Odd(Cell[Carry]):
    """States that come from the input alone or from nothing, kinks, and an output that the state hardly touches."""

    State = Carry

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.W = self.weight("H D")
        self.U = self.weight("H D")
        self.b = self.weight("H")

    def step(self, x, state):
        h = torch.where(state.h > 0, state.h * 0.5, -state.h) + linear(x, self.W) + linear(state.before, self.U, self.b)
        h = h.clamp(-1.0, 1.0) + torch.nn.functional.gelu(h, approximate="tanh") * state.still.sigmoid()
        h = h - h.mean(-1, keepdim=True)
        return torch.minimum(h, self.b) + x.sum(-1, keepdim=True).abs().sqrt(), Carry(h, x, state.still)


class Stopped(Cell[TwoState]):
    """A gradient stopped on purpose: finite differences see through it, so it stands apart."""

    State = TwoState

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.W = self.weight("H D")
        self.U = self.weight("H H")

    def step(self, x, state):
        fast = (linear(x, self.W) + linear(state.fast, self.U)).tanh() + state.slow.detach()
        return fast * fast.detach(), TwoState(fast, 0.5 * state.slow + 0.1 * fast.softmax(-1).detach())
