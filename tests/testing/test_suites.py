"""The suites catch what they are for: an executor that is wrong in one thing fails them."""

import dataclasses
import math

import pytest
import torch

from recurra.cells import CELLS, LSTMCell
from recurra.engine import EXECUTORS, staged
from recurra.testing import CASES, CellConformance, ExecutorConformance, assert_within_eps, relative_error


class Suite(ExecutorConformance):
    executor = "staged"
    make = staticmethod(LSTMCell)


def everything(suite):
    case = next(c for c in CASES if c.name == "everything")
    suite.test_equals_the_plain_loop(case, (9, 4, 6, 5), torch.float64)


WRONG = {
    "the output, slightly": lambda r, s: _with(r, s, y=lambda y: y * (1 + 1e-12)),
    "the padding": lambda r, s: _with(r, s, y=lambda y: y + 1e-30),
    "the last state": lambda r, s: _with(r, s, state=lambda v: tuple(2 * t - t.detach() for t in v)),
    "the states of every frame": lambda r, s: _with(r, s, states=lambda v: v[::-1]),
    "a reset that is ignored": lambda r, s: staged.run(r.replace(reset=None), s),
    "lengths that are ignored": lambda r, s: staged.run(r.replace(lengths=None), s),
    "a direction that is ignored": lambda r, s: staged.run(r.replace(reverse=not r.reverse), s),
}


def _with(request, save, **changes):
    result = staged.run(request, save)
    return result._replace(**{name: change(getattr(result, name)) for name, change in changes.items()})


def test_a_right_executor_passes():
    everything(Suite())


@pytest.mark.parametrize("wrong", WRONG)
def test_an_executor_that_is_wrong_fails(wrong, monkeypatch):
    monkeypatch.setitem(EXECUTORS, "staged", dataclasses.replace(EXECUTORS["staged"], run=WRONG[wrong]))
    with pytest.raises(AssertionError, match="is off by"):
        everything(Suite())


def test_a_cell_that_cannot_be_derived_fails_its_suite():
    class Branching(CELLS["rnn"]):
        def step(self, x, state):
            return (state.h, state) if (x > 0).all() else (x, state)

    class Own(CellConformance):
        make = staticmethod(Branching)

    with pytest.raises(Exception, match="cannot be derived"):
        Own().test_is_derivable()


@pytest.mark.parametrize(
    ("got", "ref", "error"),
    [
        (torch.tensor([1.0]), torch.tensor([1.0]), 0.0),
        (torch.tensor([1.0 + 2**-23]), torch.tensor([1.0]), 1.0),
        (torch.tensor([math.nan]), torch.tensor([1.0]), math.inf),
        (torch.tensor([1.0]), torch.tensor([0.0]), math.inf),
        (torch.tensor([0.0]), torch.tensor([0.0]), 0.0),
        (torch.zeros(2), torch.zeros(3), math.inf),
        (torch.zeros(0), torch.zeros(0), 0.0),
    ],
)
def test_errors_in_units_of_rounding(got, ref, error):
    assert relative_error(got, ref.double()) == error


def test_the_plain_loops_own_error_widens_the_bound_and_nan_does_not():
    ref, got = torch.ones(4).double(), torch.full((4,), 1 + 20 * 2**-23)
    with pytest.raises(AssertionError, match=r"x \(4,\) is off by 20 eps of torch.float32; allowed 8"):
        assert_within_eps(got, ref, what="x")
    assert_within_eps(got, ref, own=relative_error(torch.full((4,), 1 + 8 * 2**-23), ref))
    with pytest.raises(AssertionError, match="allowed 8"):
        assert_within_eps(got, ref, own=relative_error(torch.full((4,), math.nan), ref))
