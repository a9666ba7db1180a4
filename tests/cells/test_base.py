"""What an author writes a cell with."""

from typing import Annotated, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from recurra.cells import CELLS, Cell, GRUCell, HiddenState, LSTMCell, LSTMState
from recurra.errors import CellDefinitionError, OptionError, ShapeSpecError, UnknownNameError
from recurra.layers import Recurrent
from recurra.shapes import dims, extent, show


class Plain(Cell[HiddenState]):
    def step(self, x, state):
        return state.h, state


def test_the_state_type_follows_from_the_class():
    assert Plain(2, 3).State is HiddenState
    assert Plain(2, 3).state_shapes["h"][0].size == 3


def test_weights_are_drawn_gate_by_gate_and_anew():
    torch.manual_seed(0)
    cell = LSTMCell(8, 8)
    for block in cell.weight_hh.chunk(4):
        torch.testing.assert_close(block @ block.t(), torch.eye(8), atol=1e-5, rtol=0)
    assert cell.bias.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16
    before = cell.weight_ih.clone()
    cell.reset_parameters()
    assert not torch.equal(before, cell.weight_ih)
    assert cell.bias[8] == 1


def test_the_same_seed_draws_the_same_weights():
    def draw():
        torch.manual_seed(3)
        return GRUCell(3, 4).state_dict()

    a, b = draw(), draw()
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("name", CELLS)
def test_a_fresh_cell_says_its_sizes_and_documents_its_equations(name):
    cell = CELLS[name](3, 4)
    assert "D=3, H=4" in repr(cell)
    doc = type(cell).__doc__
    assert ".. math::" in doc
    assert ">>>" in doc
    assert any(str(year) in doc for year in range(1985, 2027)), "the paper and its year"


def _with(**fields):
    return type("Wrong", (Cell,), {"step": lambda self, x, state: (x, state), **fields})


class NotLetters(NamedTuple):
    h: Annotated[Tensor, "Q"]


BAD = {
    "no state": (lambda: _with()(2, 3), CellDefinitionError, "does not say what its state is"),
    "a dict for a state": (lambda: _with(State=dict)(2, 3), CellDefinitionError, r"Wrong\.State must be a NamedTuple"),
    "an unknown letter": (lambda: _with(State=NotLetters)(2, 3), ShapeSpecError, "letter Q, whose size is not known"),
    "a shape that is none": (lambda: Plain(2, 3).weight("4h D"), ShapeSpecError, "cannot read '4h'"),
    "an unknown initialisation": (lambda: Plain(2, 3).weight("H D", init="orthgonal"), UnknownNameError, "'orthogonal'"),
    "too few constants": (lambda: Plain(2, 3).weight("4H", init=(0, 1)), OptionError, "has 4 blocks\n  received: 2 constants"),
    "a size that is none": (lambda: Plain(2.5, 3), OptionError, "D must be a positive integer\n  received: 2.5"),
    "a reserved letter": (lambda: Cell.__init__(Plain.__new__(Plain), 2, 3, T=4), OptionError, "'T' cannot name a size"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_definitions_that_are_refused(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_cells_are_abstract_without_a_step():
    with pytest.raises(TypeError, match="abstract"):
        type("NoStep", (Cell,), {"State": HiddenState})(2, 3)


def test_shapes_in_letters():
    sizes = {"D": 3, "H": 5, "K": 2}
    assert extent(dims("4H D+H", sizes)) == (20, 8)
    assert show(dims("2H D+H 7 K", sizes)) == "(2H, D+H, 7, K)"
    four = dims("4H", sizes)[0]
    assert [str(four.part(n)) for n in (5, 10, 20, 3)] == ["H", "2H", "4H", "3"]
    assert str(dims("D", sizes)[0] + dims("H", sizes)[0]) == "D+H"


def test_states_are_named_and_checked_as_tuples_too():
    cell = LSTMCell(2, 3)
    y, state = cell(torch.zeros(1, 2), (torch.zeros(1, 3), torch.ones(1, 3)))
    assert isinstance(state, LSTMState)
    assert y.shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "weight", "value"),
    [("rg_lru", "bias_gates", -200.0), ("lru", "nu", -40.0), ("slstm", "bias", -200.0)],
    ids=["rg_lru", "lru", "slstm"],
)
def test_gradients_are_finite_where_a_gate_is_shut(name, weight, value):
    """sqrt(1 - a²) has an infinite slope where a reaches 1, and an sLSTM divides by what its gates let in."""
    layer = Recurrent(name, 3, 4)
    with torch.no_grad():
        layer.cells()[0].get_parameter(weight).fill_(value)
    x = torch.randn(2, 5, 3, requires_grad=True)
    layer(x)[0].sum().backward()
    assert all(of.grad.isfinite().all() for of in (x, *layer.parameters()))


def test_a_parameter_in_the_place_of_a_weight_that_is_gone_is_no_weight():
    class Own(Cell[HiddenState]):
        def __init__(self):
            super().__init__(3, 5)
            for k in range(20):
                setattr(self, f"p{k}", nn.Parameter(self.weight("H D").data.t().clone()))

        def step(self, x, state):
            return x, state

    assert Own()._weight_specs == {}
