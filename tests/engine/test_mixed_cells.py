"""Cells whose state, settings or weights are of unlike kinds: they equal the plain loop, or give way to it."""

from typing import Annotated, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from recurra.cells import Cell, HiddenState
from recurra.engine import options, plan_for, scan


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Pair(NamedTuple):
    h: Tensor
    n: Tensor


class Counted(NamedTuple):
    h: Tensor
    n: Annotated[Tensor, "1"]


class Given(NamedTuple):
    m: Tensor


class Of(Cell[HiddenState]):
    """A cell with a step `body(cell, x, state, *constants)`."""

    def __init__(self, body):
        super().__init__(3, 4)
        self.w, self.u, self.b = self.weight("H D"), self.weight("H H"), self.weight("H", init="ones")
        self.body = body

    def step(self, x, state, *constants):
        return self.body(self, x, state, *constants)


class OfPair(Of):
    State = Pair


class OfConstants(Of):
    Constants = Given


def one(body):
    """A cell whose output is its only state."""

    def step(cell, x, state):
        h = body(cell, linear(x, cell.w), state.h)
        return h, HiddenState(h)

    return Of(step)


def outcome(cell, x, executor, **arguments):
    """All that a scan gives, and the gradients of the weights."""
    with options(executor=executor):
        y, *states = scan(cell, x, **arguments)
    values = [y, *(v for state in states for v in state)]
    loss = sum((v * (k + 1)).sin().sum() for k, v in enumerate(values))
    return [*values, *torch.autograd.grad(loss, list(cell.parameters()), materialize_grads=True)]


def same(cell, x, executor="auto", **arguments):
    by_loop = outcome(cell, x, "reference", **arguments)
    torch.testing.assert_close(outcome(cell, x, executor, **arguments), by_loop, rtol=1e-4, atol=1e-5)


class Counter(Of):
    """Counts its frames in whole numbers."""

    State = Counted

    def __init__(self):
        count = lambda c, x, s: (s.h, Counted(torch.tanh(linear(x, c.w)) / (s.n + 1), s.n + 1))
        super().__init__(count)

    def initial_state(self, batch_size, *, like=None):
        return Counted(like.new_zeros(batch_size, 4), torch.zeros(batch_size, 1, dtype=torch.long))


def test_a_state_of_whole_numbers_is_left_to_the_loop():
    cell, x = Counter(), torch.randn(5, 2, 3)
    plan = plan_for(cell, x)
    assert plan.executor == "reference"
    assert "torch.int64 beside" in plan.against["staged"]
    same(cell, x, lengths=torch.tensor([5, 3]), return_states=True)


LINEAR = {
    "a state that reads a later one": lambda c, x, s: (
        s.h + s.n,
        Pair(s.n * linear(x, c.w).sigmoid(), 0.9 * s.n + linear(x, c.w)),
    ),
    "a product to which a gradient is added": lambda c, x, s: (
        s.n,
        Pair(s.h, linear(torch.tanh(linear(x, c.w) + linear(s.h, c.u)), c.u)),
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_several_states_are_solved_in_their_order(name):
    cell = OfPair(LINEAR[name])
    state = Pair(torch.randn(2, 4), torch.randn(2, 4))
    same(cell, torch.randn(7, 2, 3), "associative", state=state)


def test_numbers_are_not_rounded_to_the_default_dtype():
    cell, x = one(lambda c, a, h: 0.9 * h + a).double(), torch.randn(7, 2, 3, dtype=torch.float64)
    found = [outcome(cell, x, by)[0] for by in ("associative", "reference")]
    torch.testing.assert_close(*found, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("executor", ["native", "staged", "associative"])
def test_a_next_state_of_constants_alone_has_a_row_a_frame(executor):
    cell = OfConstants(lambda c, x, s, k: (s.h + linear(x, c.w), HiddenState(torch.tanh(linear(k.m, c.u)))))
    constants = Given(torch.randn(3, 4))
    same(cell, torch.randn(5, 3, 3), executor, constants=constants, return_states=True)
    same(cell, torch.randn(5, 3, 3), executor, constants=constants, return_states=True, lengths=torch.tensor([2, 5, 4]))


LEFT_TO_THE_LOOP = {
    "a weight expanded": lambda c, a, h: (c.b * 1).expand(a.shape[0], -1),
    "a sparse weight": lambda c, a, h: torch.tanh(a + linear(h, c.sparse)),
    "whole numbers": lambda c, a, h: torch.tanh(a + h) * torch.where(h > 0, 1, 2) / 3,
    "booleans": lambda c, a, h: torch.where(torch.where(h > 0, True, False), a, h),
}


@pytest.mark.filterwarnings("ignore:.*runs in the plain loop")
@pytest.mark.parametrize("name", LEFT_TO_THE_LOOP)
def test_what_the_loop_alone_does(name):
    cell, x = one(LEFT_TO_THE_LOOP[name]), torch.randn(5, 2, 3)
    cell.register_buffer("sparse", torch.eye(4).to_sparse())
    assert plan_for(cell, x).executor == "reference"
    same(cell, x)


def test_a_choice_between_numbers_is_in_the_default_dtype():
    cell = one(lambda c, a, h: a + h * torch.where(h > 0, 0.1, 0.2))
    assert plan_for(cell, torch.zeros(5, 2, 3)).executor == "native"
    assert plan_for(cell.double(), torch.zeros(5, 2, 3).double()).executor == "reference"


def test_a_cell_without_weights_runs_in_the_dtype_of_its_input():
    class Leaky(Cell[HiddenState]):
        def __init__(self):
            super().__init__(3, 3)

        def step(self, x, state):
            h = 0.5 * state.h + x * (1 + torch.finfo(x.dtype).eps * 1e6)
            return h, HiddenState(h)

    cell = Leaky()
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(5, 2, 3, dtype=dtype)
        found = []
        for executor in ("auto", "staged", "reference"):
            with options(executor=executor):
                found.append(scan(cell, x)[0])
        torch.testing.assert_close(found[0], found[2])
        torch.testing.assert_close(found[1], found[2])
        assert plan_for(cell, x).executor == "native"


@pytest.mark.parametrize("executor", ["auto", "staged"])
def test_weights_have_a_gradient_of_zero_where_there_is_no_sequence(executor):
    cell = one(lambda c, a, h: torch.tanh(a + linear(h, c.u)))
    same(cell, torch.zeros(5, 0, 3), executor)


@pytest.mark.filterwarnings("ignore:.*runs in the plain loop", "ignore:Full backward hook")
def test_a_backward_hook_registered_after_the_first_scan():
    cell, x = one(lambda c, a, h: torch.tanh(a + c.inner(h))), torch.randn(5, 2, 3)
    cell.inner = torch.nn.Linear(4, 4)
    same(cell, x)
    cell.inner.register_full_backward_hook(lambda module, into, out: tuple(g if g is None else 0.5 * g for g in into))
    same(cell, x)
