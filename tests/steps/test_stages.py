"""Stages follow from dependence, however a step is written."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

from recurra.cells import CELLS, Cell, GRUCell, HiddenState, LSTMCell, LSTMState, MinGRUCell
from recurra.engine import scan
from recurra.engine.derive import derive
from recurra.steps.ops import Kind
from recurra.steps.rewrites import REWRITES
from recurra.steps.stages import Linearity, Stage


def staged(cell):
    return derive(cell).forward.staged


class ConcatLSTM(Cell[LSTMState]):
    """An LSTM as TensorFlow wrote it: one product of [x, h]."""

    State = LSTMState

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.W = self.weight("4H D+H")
        self.bias = self.weight("4H")

    def step(self, x, state):
        i, f, g, o = linear(torch.cat([x, state.h], -1), self.W, self.bias).chunk(4, -1)
        c = f.sigmoid() * state.c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h, LSTMState(h, c)


def test_lstm_on_a_concatenation_hoists_its_input_projection():
    derived = staged(ConcatLSTM(3, 5))
    assert derived.count(Stage.HOIST, Kind.CONTRACTION) == 1
    assert derived.count(Stage.LOOP, Kind.CONTRACTION) == 1
    assert derived.gemm_depth == 1


def test_lstm_has_one_product_in_and_one_outside_of_the_loop():
    derived = staged(LSTMCell(3, 5))
    assert derived.count(Stage.HOIST, Kind.CONTRACTION) == derived.count(Stage.LOOP, Kind.CONTRACTION) == 1
    assert derived.nodes(Stage.SINK) == []
    assert len(derived.segments) == 1


def test_gru_with_its_reset_before_has_two_dependent_products():
    before, after = staged(GRUCell(3, 5, reset="before")), staged(GRUCell(3, 5))
    assert (before.gemm_depth, len(before.segments)) == (2, 2)
    assert (after.gemm_depth, len(after.segments)) == (1, 1)
    assert after.count(Stage.LOOP, Kind.CONTRACTION) == 1  # its two products of h became one


def test_projected_lstm_has_states_of_unequal_width_and_two_segments():
    derived = staged(CELLS["lstmp"](3, 6))
    assert [str(derived.graph.nodes[s].shape[0]) for s in derived.graph.states] == ["P", "H"]
    assert derived.gemm_depth == len(derived.segments) == 2


def test_layer_norm_ends_segments():
    derived = staged(CELLS["layer_norm_lstm"](3, 6))
    assert len(derived.segments) == 3
    assert derived.count(Stage.HOIST, Kind.REDUCTION) == 1
    assert derived.count(Stage.LOOP, Kind.REDUCTION) == 2


def test_min_gru_is_linear_in_its_state_and_sinks_its_output():
    derived = staged(MinGRUCell(3, 5))
    assert derived.linearity is Linearity.DIAGONAL
    assert derived.gemm_depth == 0
    assert derived.count(Stage.SINK, Kind.CONTRACTION) == 1
    assert derived.count(Stage.LOOP, Kind.CONTRACTION) == 0


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "lstmp", "layer_norm_lstm"])
def test_gated_cells_are_not_linear(name):
    assert staged(CELLS[name](3, 4)).linearity is Linearity.NO


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


def linear_cell(update):
    class Linear(Cell[Pair]):
        State = Pair

        def __init__(self, input_size, hidden_size):
            super().__init__(input_size, hidden_size)
            self.W = self.weight("H H")
            self.decay = self.weight("H")

        def step(self, x, state):
            new = Pair(*update(x, state, self.W, self.decay))
            return new.a, new

    return Linear(4, 4)


@pytest.mark.parametrize(
    ("update", "linearity"),
    [
        (lambda x, s, W, d: (s.a * d.sigmoid() + x, s.b / 2 - x), Linearity.DIAGONAL),
        (lambda x, s, W, d: (x, s.b), Linearity.DIAGONAL),
        (lambda x, s, W, d: (torch.where(x > 0, s.a, 0.5 * s.a), -s.b), Linearity.DIAGONAL),
        (lambda x, s, W, d: (s.a @ W + x, s.b), Linearity.DENSE),
        # Leaves that feed one another are small matrices for each unit, and what is solved first may be a factor.
        (lambda x, s, W, d: (s.a + 0.1 * s.b, s.b - 0.1 * s.a), Linearity.DIAGONAL),
        (lambda x, s, W, d: (s.b, s.a), Linearity.DIAGONAL),
        (lambda x, s, W, d: (s.a * s.b.tanh(), s.b / 2), Linearity.DIAGONAL),
        (lambda x, s, W, d: (s.a * s.b, s.b + s.a), Linearity.NO),
        (lambda x, s, W, d: (s.a + s.b[..., :1], s.b + s.a), Linearity.DENSE),
        (lambda x, s, W, d: (s.a.tanh(), s.b), Linearity.NO),
        (lambda x, s, W, d: (torch.where(s.a > 0, x, s.a), s.b), Linearity.NO),
        (lambda x, s, W, d: (x / (1 + s.a), s.b), Linearity.NO),
    ],
)
def test_linearity_in_the_state(update, linearity):
    assert staged(linear_cell(update)).linearity is linearity


def test_an_expression_of_weights_alone_is_computed_once_and_keeps_its_gradient():
    class Decay(Cell[HiddenState]):
        State = HiddenState

        def __init__(self, input_size, hidden_size):
            super().__init__(input_size, hidden_size)
            self.W = self.weight("H D")
            self.lam = self.weight("H")

        def step(self, x, state):
            h = torch.exp(-softplus(self.lam)) * state.h + linear(x, self.W)
            return h, HiddenState(h)

    cell = Decay(3, 4)
    derived = staged(cell)
    assert [derived.graph.nodes[i].op for i in derived.nodes(Stage.LOOP)] == ["mul", "add"]
    assert sum(derived.graph.nodes[i].op == "call" for i in derived.nodes(Stage.WEIGHT)) == 3
    y, _ = scan(cell, torch.randn(5, 2, 3))
    y.sum().backward()
    assert cell.lam.grad is not None
    assert (cell.lam.grad != 0).all()


def test_a_graph_prints_and_is_frozen():
    graph = staged(LSTMCell(3, 5)).graph
    text = str(graph)
    assert "linear(%1, %4, %6) (4H)" in text
    assert "-> next c" in text
    with pytest.raises(AttributeError):
        graph.nodes[0].op = "other"  # type: ignore[misc]


def test_every_rewrite_says_what_it_is_for():
    assert all(rewrite.why and rewrite.rule.__doc__ for rewrite in REWRITES.values())
