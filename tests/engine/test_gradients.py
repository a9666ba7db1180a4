"""Gradients that are asked for in other ways than once, after the scan, by the thread that ran it."""

import pytest
import torch
from torch.nn.functional import linear

import recurra
from recurra.cells import Cell, HiddenState
from recurra.engine import options, request, scan


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("executor", ["native", "staged"])
def test_an_argument_computed_from_another_counts_once(executor):
    layer, x = recurra.LSTM(3, 4), torch.randn(5, 6, 3)
    with options(executor=executor):
        _, state = layer(x[:3])  # the state depends on the weights, which are given beside it
        loss = layer(x[3:], state)[0].square().sum()
        once, again = (torch.autograd.grad(loss, layer.weight_hh_l0, create_graph=c, retain_graph=True) for c in (0, 1))
    torch.testing.assert_close(once, again)


@pytest.mark.parametrize("executor", ["native", "staged"])
def test_many_cotangents_at_once(executor):
    cell, x = recurra.GRUCell(3, 4), torch.randn(5, 2, 3)
    found = []
    for by in (executor, "reference"):
        with options(executor=by):
            sums = lambda v: scan(cell, v)[0].sum((0, 1))
            found.append(torch.autograd.functional.jacobian(sums, x, vectorize=True))
            found.append(torch.autograd.functional.hessian(lambda v: scan(cell, v)[0].sum(), x, vectorize=True))
    torch.testing.assert_close(found[:2], found[2:])
    assert not found[0].requires_grad


def test_an_operator_s_backward_pass_may_have_more_threads(monkeypatch):
    cell, x, lengths = recurra.GRUCell(3, 8), torch.randn(9, 7, 3), torch.tensor([9, 2, 5, 7, 1, 9, 4])
    by, expected = torch.randn(9, 7, 8), None
    before = torch.get_num_threads()
    monkeypatch.setattr(request, "seen", lambda: True)
    try:
        for threads in (1, 2):
            torch.set_num_threads(1)
            y, _ = scan(cell, x, lengths=lengths)
            torch.set_num_threads(threads)
            grads = torch.autograd.grad((y * by).sum(), list(cell.parameters()))
            expected = expected or grads
            torch.testing.assert_close(grads, expected)
    finally:
        torch.set_num_threads(before)


class Own(Cell[HiddenState]):
    """A cell whose output and next state are `body(cell, x, h)`."""

    def __init__(self, body):
        super().__init__(3, 4)
        self.w, self.u, self.b = self.weight("H D"), self.weight("H H"), self.weight("H", init="ones")
        self.body = body

    def step(self, x, state):
        y, h = self.body(self, x, state.h)
        return y, HiddenState(h)


OF_WEIGHTS_ALONE = {
    "an output": lambda c, x, h: (torch.zeros_like(h) + c.b, torch.tanh(linear(x, c.w) + linear(h, c.u))),
    "a next state": lambda c, x, h: (torch.tanh(linear(x, c.w) + linear(h, c.u)), torch.zeros_like(h) + c.b.exp()),
    "both": lambda c, x, h: (c.b + torch.zeros_like(h), c.b + torch.zeros_like(h)),
}


@pytest.mark.parametrize("executor", ["native", "staged"])
@pytest.mark.parametrize("name", OF_WEIGHTS_ALONE)
def test_what_is_made_of_weights_alone_has_a_gradient(name, executor):
    cell, x, found = Own(OF_WEIGHTS_ALONE[name]), torch.randn(5, 2, 3), []
    by = [torch.randn(5, 2, 4), torch.randn(2, 4)]
    for ex in (executor, "reference"):
        with options(executor=ex):
            y, state = scan(cell, x)
        loss = (y * by[0]).sum() + (state.h * by[1]).sum()
        found.append(torch.autograd.grad(loss, list(cell.parameters()), materialize_grads=True))
    torch.testing.assert_close(*found)
