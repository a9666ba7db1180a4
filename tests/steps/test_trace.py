"""What cannot be derived is refused with the operation and the line of source, and nothing is baked in."""

import re
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from recurra.cells import Cell, HiddenState, LSTMCell
from recurra.engine import explain, options, scan
from recurra.engine.derive import derive
from recurra.errors import CellDefinitionError, UnderivableStepError


def cell_with(step, **extra):
    class Own(Cell[HiddenState]):
        State = HiddenState

        def __init__(self, input_size, hidden_size):
            super().__init__(input_size, hidden_size)
            self.W = self.weight("H D")
            self.v = self.weight("H")
            for name, value in extra.items():
                setattr(self, name, value)

        def step(self, x, state):
            h = step(self, x, state.h)
            return h, HiddenState(h)

    return Own(3, 4)


OUTSIDE = torch.ones(4)
REFUSED = {
    "unknown operation": (lambda c, x, h: h + linear(x, c.W).sin(), "the operation is not in the vocabulary", "sin"),
    "a branch": (lambda c, x, h: h if h.sum(-1).mean(-1) > 0 else -h, "over the batch axis|value of a tensor", ""),
    "bool": (lambda c, x, h: h if (h > 0) else -h, "looks at the value of a tensor", "__bool__"),
    "item": (lambda c, x, h: h * h[..., 0].item(), "looks at the value", "item"),
    "float": (lambda c, x, h: h * float(h[..., 0]), "looks at the value", "__float__"),
    "a tensor from outside": (lambda c, x, h: h + OUTSIDE, "neither a value of the step nor computed from weights", "add"),
    "a tensor made inside": (lambda c, x, h: h + torch.zeros(4), "neither a value of the step", "add"),
    "a plain attribute": (lambda c, x, h: h * c.plain, "neither a value of the step", "mul"),
    "a random draw": (lambda c, x, h: dropout(h, 0.5), "a random draw inside of a step", "dropout"),
    "rand_like": (lambda c, x, h: h + torch.rand_like(h), "a random draw inside of a step", "rand_like"),
    "in place": (lambda c, x, h: h.add_(1), r"in place", "add_"),
    "augmented assignment": (lambda c, x, h: _augmented(h), r"in place", "add_"),
    "a weight in place": (lambda c, x, h: h + c.v.mul_(2), "changes a weight in place", "mul_"),
    "over the batch": (lambda c, x, h: h - h.mean(0), "over the batch axis", "mean"),
    "over everything": (lambda c, x, h: h - h.mean(), "a reduction over everything", "mean"),
    "a reshape of the batch": (lambda c, x, h: h.reshape(-1, 2).sum(-1, keepdim=True).expand(-1, 4), "mixes the batch axis", ""),
    "a product of values": (lambda c, x, h: h @ h.t(), "not in the vocabulary|product of two values", ""),
    "a conversion": (lambda c, x, h: h.double().float(), "conversion of dtype", "double"),
    "an index by values": (lambda c, x, h: h[h > 0], "an index that is neither a slice nor a whole number", "getitem"),
    "stride": (lambda c, x, h: h[:, ::2].repeat(1, 2), "an index with a stride", "getitem"),
    "power": (lambda c, x, h: h**1.7, "a power other than", "pow"),
}  # fmt: skip


def _augmented(h):
    h += 1
    return h


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_operation_and_the_line(name):
    step, what, operation = REFUSED[name]
    cell = cell_with(step, plain=torch.ones(4))
    with pytest.raises(UnderivableStepError, match=what) as caught:
        derive(cell)
    message = str(caught.value)
    assert operation in message
    assert re.search(r"test_trace\.py:\d+: \S", message), message
    assert "Own.step cannot be derived" in message


def test_batch_size_is_never_baked_in():
    cell = cell_with(lambda c, x, h: h + c.v.expand(x.shape[0], -1))
    with pytest.raises(UnderivableStepError, match="over the batch axis|batch size"):
        derive(cell)
    cell = cell_with(lambda c, x, h: h / x.shape[0])
    with pytest.raises(UnderivableStepError, match="computes something from the batch size"):
        derive(cell)


def test_a_refused_cell_runs_in_the_plain_loop_with_one_warning_and_a_reason():
    cell = cell_with(lambda c, x, h: (h + linear(x, c.W)).sin())
    x = torch.randn(5, 2, 3)
    with pytest.warns(UserWarning, match=r"Own runs in the plain loop, which is slow: sin at .*test_trace\.py"):
        y, _ = scan(cell, x)
    scan(cell, x)  # warned once: a second warning would be an error here
    h, expected = torch.zeros(2, 4), []
    for t in range(5):
        h = (h + linear(x[t], cell.W)).sin()
        expected.append(h)
    torch.testing.assert_close(y, torch.stack(expected))
    explanation = explain(cell)
    assert explanation.plan.executor == "reference"
    assert "sin" in explanation.plan.against["staged"]
    assert "the operation is not in the vocabulary" in str(explanation)
    with options(executor="staged"), pytest.raises(UnderivableStepError, match="sin"):
        scan(cell, x)


def test_buffers_are_weights_and_modules_inside_of_a_cell_are_seen():
    class Own(Cell[HiddenState]):
        State = HiddenState

        def __init__(self, input_size, hidden_size):
            super().__init__(input_size, hidden_size)
            self.inner = nn.Linear(input_size, hidden_size)
            self.norm = nn.LayerNorm(hidden_size)
            self.register_buffer("decay", torch.full((hidden_size,), 0.5))

        def step(self, x, state):
            h = self.norm(self.inner(x) + self.decay * state.h)
            return h, HiddenState(h)

    cell, x = Own(3, 4), torch.randn(6, 2, 3)
    with options(executor="staged"):
        y, _ = scan(cell, x)
    with options(executor="reference"):
        z, _ = scan(cell, x)
    torch.testing.assert_close(y, z)


def test_parametrised_and_shared_weights():
    cell = LSTMCell(4, 4)
    torch.nn.utils.parametrizations.weight_norm(cell, "weight_hh")
    cell.weight_ih.data.mul_(0.5)
    x = torch.randn(3, 2, 4)
    grads = []
    for executor in ("staged", "reference"):
        with options(executor=executor):
            y, _ = scan(cell, x)
        cell.zero_grad()
        y.square().sum().backward()
        grads.append([p.grad.clone() for p in cell.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_a_changed_setting_is_derived_anew():
    cell = cell_with(lambda c, x, h: c.scale * h + linear(x, c.W), scale=0.5)
    x = torch.randn(4, 2, 3)
    with options(executor="staged"):
        before, _ = scan(cell, x)
        cell.scale = 0.25
        after, _ = scan(cell, x)
    with options(executor="reference"):
        expected, _ = scan(cell, x)
    torch.testing.assert_close(after, expected)
    assert not torch.equal(before, after)


def test_dropout_in_evaluation_is_no_random_draw():
    cell = cell_with(lambda c, x, h: dropout(h, 0.5, c.training) + linear(x, c.W))
    with pytest.raises(UnderivableStepError, match="random draw"):
        derive(cell)
    assert derive(cell.eval()).forward.graph.outputs


class Wide(NamedTuple):
    h: Tensor


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda self, x, state: state.h, r"must return \(y, state\)"),
        (lambda self, x, state: (state.h, (state.h, state.h)), r"must return \(y, state\)"),
        (lambda self, x, state: (state.h, Wide(state.h[:, :2])), r"state\.h of shape \(B, H\)"),
    ],
)
def test_a_step_that_returns_the_wrong_thing(step, message):
    kind = type("Wrong", (Cell,), {"State": Wide, "step": step})
    with pytest.raises(CellDefinitionError, match=message):
        derive(kind(3, 4))
