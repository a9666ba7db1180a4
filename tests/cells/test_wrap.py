"""Wrappers: what they draw, and what they leave alone."""

import math
import pickle

import pytest
import torch
from torch import Tensor

import recurra
from recurra import Recurrent
from recurra.cells import (
    WRAPPERS,
    Cell,
    GRUCell,
    HiddenState,
    LSTMCell,
    MinGRUCell,
    chrono,
    learned_state,
    recurrent_dropout,
    residual,
    weight_drop,
    zoneout,
)
from recurra.cells.wrap import ZoneoutInput
from recurra.engine import options, scan
from recurra.errors import CellDefinitionError, OptionError, UnknownNameError
from recurra.testing import assert_within_eps

T, B, D, H = 40, 6, 3, 5


def run(cell, x, executor="auto", seed=0, **arguments):
    torch.manual_seed(seed)
    with options(executor=executor):
        return scan(cell, x, **arguments)


@pytest.fixture
def x():
    return torch.randn(T, B, D, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "wrap", [lambda c: zoneout(c, 0.3), lambda c: recurrent_dropout(c, 0.3), lambda c: weight_drop(c, 0.5)]
)
def test_the_same_seed_gives_the_same_masks_whoever_runs(wrap, x):
    cell = wrap(LSTMCell(D, H)).double()
    y, _ = run(cell, x.double(), "reference")
    again, _ = run(cell, x.double(), "staged")
    other, _ = run(cell, x.double(), "staged", seed=1)
    assert_within_eps(again, y)
    assert (other - y).norm() > 0.01 * y.norm()


@pytest.mark.parametrize(
    "wrap", [lambda c: recurrent_dropout(c, 0.3), lambda c: weight_drop(c, 0.5), lambda c: zoneout(c, 0.0)]
)
def test_evaluation_draws_nothing(wrap, x):
    inner = LSTMCell(D, H)
    y, state = run(wrap(inner).eval(), x)
    plain, plain_state = run(inner, x)
    assert_within_eps(y, plain.double())
    assert_within_eps(state.c, plain_state.c.double())


def test_zoneout_keeps_the_part_of_units_that_it_should(x):
    cell = zoneout(LSTMCell(D, H), {"c": 0.4})
    x = x.repeat(10, 4, 1)
    _, _, states = run(cell, x, return_states=True)
    kept = (states.c[1:] == states.c[:-1]).float().mean()
    assert abs(kept - 0.4) < 0.02
    assert (states.h[1:] == states.h[:-1]).float().mean() < 0.01  # h has no zoneout of its own


def test_zoneout_is_expected_in_evaluation(x):
    """One frame by hand: 0.4 of the old state, 0.6 of the new one."""
    inner, state = LSTMCell(D, H), LSTMCell.State(torch.randn(B, H), torch.randn(B, H))
    y, new = zoneout(inner, {"c": 0.4, "h": 0.1}).eval()(x[0], state)
    _, plain = inner(x[0], state)
    assert_within_eps(new.c, (0.4 * state.c + 0.6 * plain.c).double())
    assert_within_eps(new.h, (0.1 * state.h + 0.9 * plain.h).double())
    assert y is new.h  # the output is the state's leaf, after zoneout


def test_zoneout_masks_can_be_given(x):
    cell, kept = zoneout(GRUCell(D, H), 0.5), torch.zeros(T, B, H)
    kept[3:] = 1
    y, state = scan(cell, ZoneoutInput(x, kept))
    plain, _ = scan(cell.cell, x[:3])
    assert_within_eps(y[:3], plain.double())
    assert_within_eps(state.h, plain[-1].double())


def test_recurrent_dropout_drops_the_same_units_in_each_frame(x):
    seen = []

    class Spy(Cell[HiddenState]):
        def step(self, x: Tensor, state: HiddenState):
            seen.append(state.h)
            return state.h, HiddenState(torch.ones_like(state.h))

    run(recurrent_dropout(Spy(D, 50), 0.3), x, "reference")
    later = torch.stack(seen[1:])
    assert (later == later[0]).all()
    assert later.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert abs((later == 0).float().mean() - 0.3) < 0.05


def test_dropped_weights_are_drawn_once_a_scan_and_have_gradients(x):
    cell = weight_drop(LSTMCell(D, H), 0.5)
    (y, _), weight = run(cell, x), cell.cell.weight_hh
    y.sum().backward()
    assert abs((weight.grad == 0).float().mean() - 0.5) < 0.2
    before = weight.detach().clone()
    run(cell, x)
    assert (weight == before).all()


def test_residual_adds_its_input_and_says_where_it_cannot(x):
    inner = GRUCell(D, D)
    assert_within_eps(run(residual(inner), x)[0], (run(inner, x)[0] + x).double())
    with pytest.raises(CellDefinitionError, match=r"as wide as the input of GRUCell(.|\n)*\(3,\)(.|\n)*\(5,\)"):
        run(residual(GRUCell(D, H)), x, "reference")


def test_a_learned_state_begins_a_sequence_and_a_segment(x):
    cell = learned_state(GRUCell(D, H))
    with torch.no_grad():
        cell.initial[0].normal_()
    start = HiddenState(cell.initial[0].expand(B, H))
    y, _ = run(cell, x)
    assert_within_eps(y, run(cell.cell, x, state=start)[0].double())
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[7] = True
    z, _ = run(cell, x, reset=reset)
    assert_within_eps(z[7:], run(cell.cell, x[7:], state=start)[0].double())
    z[7].sum().backward()
    assert cell.initial[0].grad.abs().sum() > 0


def test_wrappers_stand_in_layers_train_and_pickle(x):
    net = Recurrent(lambda D, H: residual(zoneout(weight_drop(LSTMCell(D, H), 0.3), 0.1)), D, D, num_layers=2)
    torch.manual_seed(0)
    y, _ = net(x.transpose(0, 1), lengths=torch.tensor([T, 3, 0, 7, 1, T]))
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    again = pickle.loads(pickle.dumps(net.eval()))
    assert_within_eps(again(x.transpose(0, 1))[0], net(x.transpose(0, 1))[0].double(), units=0)


@pytest.mark.parametrize("p", [-0.1, 1.0, "half", True])
def test_probabilities_out_of_range(p):
    for wrap in (zoneout, recurrent_dropout, weight_drop):
        with pytest.raises(OptionError, match="at least 0 and less than 1"):
            wrap(LSTMCell(D, H), p)


def test_names_that_are_not_there():
    with pytest.raises(UnknownNameError, match=r"leaf of the state of GRUCell(.|\n)*'c'"):
        zoneout(GRUCell(D, H), {"c": 0.5})
    with pytest.raises(UnknownNameError, match=r"leaf of the state of GRUCell(.|\n)*'c'"):
        recurrent_dropout(GRUCell(D, H), 0.5, ["c"])
    with pytest.raises(UnknownNameError, match=r"weight of MinGRUCell(.|\n)*weight_hh"):
        weight_drop(MinGRUCell(D, H), 0.5)


def test_what_cannot_stand_around_what():
    with pytest.raises(CellDefinitionError, match="input is one tensor"):
        zoneout(zoneout(GRUCell(D, H), 0.1), 0.1)
    with pytest.raises(CellDefinitionError, match="without constants of its own"):
        recurrent_dropout(recurrent_dropout(GRUCell(D, H), 0.1), 0.1)


def test_every_wrapper_of_the_table_has_a_docstring_with_an_example():
    for wrap in WRAPPERS.values():
        assert ">>>" in (wrap.__doc__ or "")


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU, recurra.LSTM, recurra.GRU])
def test_chrono_of_torchs_layers_is_that_of_the_cell(kind):
    gates = {"LSTM": 4, "GRU": 3}[kind.__name__]
    layer = chrono(kind(D, 200, num_layers=2, bidirectional=True), longest=100)
    for end in ("l0", "l1", "l0_reverse", "l1_reverse"):
        ih, hh = (getattr(layer, f"bias_{way}_{end}").chunk(gates)[1] for way in ("ih", "hh"))
        assert not hh.any()
        assert 0 <= ih.min() < 3 < ih.max() <= math.log(99)
    if gates == 4:
        i, f, *_ = layer.bias_ih_l0.chunk(4)
        assert torch.equal(i, -f)


def test_chrono_reaches_through_wrappers_and_layers():
    net = chrono(Recurrent(lambda D, H: zoneout(GRUCell(D, H), 0.1), D, 200, num_layers=2), longest=100)
    for cell in net.cells():
        _, z, _ = cell.cell.bias.chunk(3)
        assert z.min() >= 0
        assert 4 < z.max() < torch.tensor(99.0).log()
    with pytest.raises(OptionError, match="more than 2 frames"):
        chrono(net, 2)
    with pytest.raises(CellDefinitionError, match="no cell here whose gates"):
        chrono(torch.nn.Linear(2, 2), 10)
