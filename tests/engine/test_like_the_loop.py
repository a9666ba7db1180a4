"""Where a derivation could differ from the plain loop over ``cell.step``: it equals it, or gives way to it."""

import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

import recurra
from recurra.cells import Cell, HiddenState
from recurra.engine import options, plan_for, scan
from recurra.layers import tbptt


class Own(Cell[HiddenState]):
    """A cell whose next state is `body(cell, a, h)`, a its projected input."""

    def __init__(self, body, H=4):
        super().__init__(3, H)
        self.w, self.u, self.b = self.weight("H D"), self.weight("H H"), self.weight("H", init="ones")
        self.body = body

    def step(self, x, state):
        h = self.body(self, linear(x, self.w), state.h)
        return h, HiddenState(h)


def run(cell, x, executor="auto", **arguments):
    """What a scan gives, and the gradients of the cell's weights."""
    with options(executor=executor):
        y, _ = scan(cell, x, **arguments)
    weights = [p for p in cell.parameters() if p.requires_grad]
    grads = torch.autograd.grad(y.square().sum(), weights, allow_unused=True) if y.requires_grad else [None] * 3
    return [y, *(torch.zeros_like(w) if g is None else g for w, g in zip(weights, grads, strict=False))]


def same(cell, x=None, executor="auto", **arguments):
    x = torch.randn(6, 2, 3, dtype=next(cell.parameters()).dtype) if x is None else x
    for a, b in zip(run(cell, x, executor, **arguments), run(cell, x, "reference", **arguments), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def executor_of(cell):
    return plan_for(cell, torch.zeros(6, 2, 3, dtype=next(cell.parameters()).dtype)).executor


@pytest.mark.parametrize("executor", ["native", "staged"])
def test_a_layer_may_be_checkpointed(executor):
    layer, grads = recurra.Recurrent("lstm", 3, 4), []
    x = torch.randn(2, 5, 3, requires_grad=True)
    with options(executor=executor):
        for through in (lambda f, v: f(v), lambda f, v: checkpoint(f, v, use_reentrant=False)):
            loss = through(lambda v: layer(v)[0], x).square().sum()
            grads.append(torch.autograd.grad(loss, [x, *layer.parameters()]))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_lengths_of_any_integers(dtype):
    layer = recurra.Recurrent("gru", 3, 4)
    for T in (10, 259, 300):
        x, lengths = torch.randn(2, T, 3), torch.tensor([3, 10])
        expected, _ = layer(x, lengths=lengths)
        y, _ = layer(x, lengths=lengths.to(dtype))
        torch.testing.assert_close(y, expected, rtol=0, atol=0)
    x = x[:, :10]
    chunks = [y for y, _ in tbptt(layer, x, chunk=4, lengths=lengths.to(dtype))]
    torch.testing.assert_close(torch.cat(chunks, 1), layer(x, lengths=lengths)[0])


def test_a_root_of_a_difference_of_equal_squares_is_a_number():
    cell = Own(lambda c, a, h: (a * a - (a + 0 * h) * (a + 0 * h)).sqrt() + 0 * h)
    with torch.no_grad():
        y, _ = scan(cell, torch.randn(60, 2, 3))
    assert executor_of(cell) == "native"
    assert not y.isnan().any()


def test_a_range_counted_from_the_end():
    cell = Own(lambda c, a, h: torch.cat([a.narrow(-1, -2, 2), h.narrow(-1, 0, 2) * c.b[:2]], -1))
    assert executor_of(cell) == "native"
    same(cell)


@pytest.mark.parametrize(
    "body",
    [
        nn.functional.relu,
        nn.ReLU(),
        nn.LeakyReLU(),
        nn.ELU(),
        nn.Hardtanh(),
        nn.ReLU6(),
        nn.Softplus(),
        nn.GELU("tanh"),
        nn.SiLU(),
        nn.Softmax(-1),
        nn.LogSigmoid(),
    ],
    ids=str,
)
def test_activations_of_torch_nn_are_derived(body):
    cell = Own(lambda c, a, h: body(a + linear(h, c.u)))
    assert executor_of(cell) == "native"
    same(cell)


def test_an_activation_in_place_runs_in_the_plain_loop():
    assert executor_of(Own(lambda c, a, h: nn.functional.relu(a + h, inplace=True))) == "reference"
