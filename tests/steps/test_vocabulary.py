"""Each name that a step may say: the derived step equals the plain loop, forward and backward, kinks and ties included."""

import pytest
import torch
import torch.nn.functional as F

from recurra.cells import Cell, HiddenState
from recurra.testing import Case, assert_within_eps, make_scan

H = 6


def cell_of(body):
    """A cell whose step is `body(a, b, W, v)`: two values that depend on input and state, a matrix and a vector."""

    class Probe(Cell[HiddenState]):
        State = HiddenState

        def __init__(self, input_size, hidden_size):
            super().__init__(input_size, hidden_size)
            self.weight_ih = self.weight("2H D")
            self.W = self.weight("H H")
            self.v = self.weight("H")

        def step(self, x, state):
            a, b = F.linear(x, self.weight_ih).chunk(2, -1)
            y = body(a + state.h, b - 0.5 * state.h, self.W, self.v)
            return y, HiddenState(0.3 * y.tanh() + 0.1 * state.h)

    return Probe


EXPRESSIONS = {
    "add": lambda a, b, W, v: a.add(b) + v + 1.5,
    "radd, rsub, rmul, rdiv": lambda a, b, W, v: 1 + (2 - a) * 3 + 4 / (5 + b * b),
    "div by a weight": lambda a, b, W, v: a / (2 + v.exp()) + b.div(1 + a * a),
    "neg, abs": lambda a, b, W, v: (-a).abs() * abs(b),
    "sigmoid, tanh, relu": lambda a, b, W, v: a.sigmoid() * b.tanh() + torch.relu(a - b),
    "exp, log, log1p, expm1": lambda a, b, W, v: (a.exp() + 1).log() + b.abs().log1p() + (0.1 * a).expm1(),
    "sqrt, rsqrt, reciprocal": lambda a, b, W, v: (a * a + 1).sqrt() * (b.square() + 1).rsqrt() + (2 + a * a).reciprocal(),
    "pow": lambda a, b, W, v: a**2 + b**3 + (a * a + 1) ** 0.5 + (b * b + 1) ** -0.5 + (1 + a * a) ** -1,
    "erf, gelu": lambda a, b, W, v: torch.erf(a) + F.gelu(b) + F.gelu(a, approximate="tanh"),
    "maximum, minimum": lambda a, b, W, v: torch.maximum(a, b) * torch.minimum(a, v) + torch.max(a, v) - torch.min(a, b),
    "ties": lambda a, b, W, v: torch.maximum(a, a * 1.0) + torch.minimum(b, b * 1.0) * 2,
    "where and comparisons": lambda a, b, W, v: torch.where((a > b) == (a >= 0), a * b, v) + torch.where(a.lt(b), 1.0, b),
    "le, ne": lambda a, b, W, v: torch.where(a.le(0.1), a, b) * torch.where(a.ne(b), 2.0, v),
    "masked_fill": lambda a, b, W, v: a.masked_fill(b > 0, 0.25) * b,
    "lerp, addcmul, addcdiv": lambda a, b, W, v: a.lerp(b, v.sigmoid()) + torch.addcmul(a, b, v, value=0.5)
    + a.addcdiv(b, 2 + v * v),
    "softplus": lambda a, b, W, v: F.softplus(a) + F.softplus(b * 30, beta=2, threshold=5),
    "logsigmoid, silu": lambda a, b, W, v: F.logsigmoid(a * 20) + F.silu(b),
    "clamp": lambda a, b, W, v: a.clamp(-0.2, 0.3) + b.clamp(min=0.1) + torch.clamp_max(a * b, 0.05) + a.clip(v, v + 1),
    "leaky_relu, elu": lambda a, b, W, v: F.leaky_relu(a, 0.2) + F.elu(b, 0.7),
    "hard ones": lambda a, b, W, v: F.hardtanh(a) + F.relu6(b * 9) + F.softsign(b),
    "linear with bias, matmul, addmm": lambda a, b, W, v: F.linear(a, W, v) + b @ W + torch.addmm(v, a, W.t()),
    "products of one operand": lambda a, b, W, v: F.linear(a, W) * F.linear(a, W.t() * 2),
    "product of a concatenation": lambda a, b, W, v: torch.cat([a, b], -1) @ torch.cat([W, W.tanh()]),
    "a concatenation with what is hoisted": lambda a, b, W, v: F.linear(torch.cat([a, b * 0 + v], -1), torch.cat([W, W], 1)),
    "sum, mean": lambda a, b, W, v: a * b.sum(-1, keepdim=True) + a.mean(1, keepdim=True) + b.mean(dim=-1).unsqueeze(-1),
    "amax, amin, var": lambda a, b, W, v: a - b.amax(-1, keepdim=True) + b.amin(-1, True) * a.var(-1, keepdim=True),
    "var unbiased=False": lambda a, b, W, v: a * b.var(-1, unbiased=False, keepdim=True),
    "softmax, log_softmax": lambda a, b, W, v: a.softmax(-1) * F.log_softmax(b, dim=-1) + torch.softmax(a * b, 1),
    "layer_norm": lambda a, b, W, v: F.layer_norm(a, (H,), v, v) + F.layer_norm(b, (H,), None, v, 1e-2),
    "layer_norm of heads": lambda a, b, W, v: F.layer_norm(a.view(-1, 2, 3), (2, 3), v.view(2, 3)).flatten(1),
    "rms_norm": lambda a, b, W, v: F.rms_norm(a, (H,), v, eps=1e-3),
    "split, chunk, cat": lambda a, b, W, v: torch.cat([*a.split([1, 2, 3], -1)[::-1], *b.chunk(4, 1)], -1)[:, 3:9],
    "narrow, select, slices": lambda a, b, W, v: a.narrow(1, 1, 1) * b + a[..., -1:] + a.select(1, 2).unsqueeze(1),
    "overlapping slices": lambda a, b, W, v: torch.cat([a[:, :4], a[:, 2:4]], -1) * b + torch.cat([b[:, 1:], b[:, :1]], -1),
    "unbind, stack": lambda a, b, W, v: torch.stack(a.unbind(-1)[::-1], dim=-1) * b,
    "stack of heads": lambda a, b, W, v: torch.stack([a[:, :3], b[:, 3:]], dim=1).flatten(1),
    "view, reshape, unflatten": lambda a, b, W, v: (a.view(a.shape[0], 2, 3) * b.reshape(-1, 2, 3)).flatten(1)
    + a.unflatten(-1, (3, -1)).mean(1, keepdim=True).expand(-1, 3, -1).reshape(a.shape[0], -1),
    "squeeze": lambda a, b, W, v: a * b.sum(-1, keepdim=True).squeeze(-1).unsqueeze(1),
    "expand": lambda a, b, W, v: a[:, :1].expand(-1, H) * b + a[:, 1:2].expand_as(b),
    "einsum": lambda a, b, W, v: torch.einsum("bi,oi->bo", a, W) + torch.einsum("b i, i o -> b o", b, W),
    "block-diagonal product": lambda a, b, W, v: torch.einsum("bgk,gjk->bgj", a.view(-1, 2, 3), W.view(2, 3, 6)[..., :3]).flatten(1)
    + torch.einsum("bgk,gkj->bgj", b.view(-1, 3, 2), W.view(3, 2, 6)[..., 4:]).flatten(1),
    "new values": lambda a, b, W, v: torch.cat([a.new_zeros(a.shape[0], 2), b[:, :2], torch.ones_like(a)[:, :2] * 0.5], 1)
    + torch.full_like(a, 0.1) + a.new_full((a.shape[0], 1), 2.0) * a.new_ones(a.shape[0], H),
    "no change": lambda a, b, W, v: a.contiguous().clone().to(b.dtype) + F.dropout(b, 0.5, training=False) + b.type_as(a),
    "a function of weights": lambda a, b, W, v: a @ torch.linalg.matrix_exp(W - W.T) + F.softplus(v).cumsum(0) * b,
    "weights in parts": lambda a, b, W, v: F.linear(a, W.chunk(2)[1].repeat(2, 1)) + torch.outer(v, v).diagonal() * b,
    "a weight of rank 2 beside a value": lambda a, b, W, v: a * v.unsqueeze(0) + W[:1] * b,
}  # fmt: skip


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_what_is_derived_equals_the_plain_loop(name):
    made = make_scan(cell_of(EXPRESSIONS[name]), (4, 3, 2, H), Case("lengths", lengths=True))
    reference, derived = (made.results(executor, torch.float64) for executor in ("reference", "staged"))
    for key, ref in reference.items():
        assert_within_eps(derived[key], ref, units=16, what=key)


KINKS = {
    "relu": lambda a, v: torch.relu(a),
    "abs": lambda a, v: a.abs(),
    "max": lambda a, v: torch.maximum(a, v * 0),
    "min": lambda a, v: torch.minimum(a, v * 0),
    "clamp": lambda a, v: a.clamp(0, 1),
    "hardtanh": lambda a, v: F.hardtanh(a, 0, 1),
    "leaky": lambda a, v: F.leaky_relu(a, 0.5),
    "amax": lambda a, v: a.amax(-1, keepdim=True) * a,
    "sqrt at 0": lambda a, v: torch.where(a > 0, a, a * 0).sqrt(),
    "softplus far out": lambda a, v: F.softplus(a * 1000),
    "logsigmoid far out": lambda a, v: F.logsigmoid(a * 1000),
    "elu far out": lambda a, v: F.elu(a * 1000),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks_follow_torch(name):
    """At exactly 0, at ties, and far out, values and gradients are torch's own."""

    class Kink(Cell[HiddenState]):
        State = HiddenState

        def __init__(self, input_size, hidden_size):
            super().__init__(input_size, hidden_size)
            self.v = self.weight("H")

        def step(self, x, state):
            y = KINKS[name](x + state.h, self.v)
            return y, HiddenState(state.h)

    x = torch.tensor([[[0.0, -0.0, 1.0, -1.0, 1.0, 0.0]]], dtype=torch.float64)
    results = []
    for executor in ("reference", "staged"):
        made = make_scan(Kink, (1, 1, 6, 6), Case("no_state", state=False))
        made.x[0].copy_(x)
        results.append(made.results(executor, torch.float64))
    for key in results[0]:
        torch.testing.assert_close(results[1][key], results[0][key], rtol=1e-14, atol=0, equal_nan=True)
