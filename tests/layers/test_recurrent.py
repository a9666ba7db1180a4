"""Stacked and bidirectional layers over any cell."""

import numpy as np
import pytest
import torch

from recurra import Recurrent
from recurra.cells import CELLS, GRUCell, LSTMCell
from recurra.engine import options, scan
from recurra.errors import (
    CellDefinitionError,
    InputShapeError,
    InputTypeError,
    LengthsError,
    NaNInputError,
    OptionError,
    ResetError,
    StateShapeError,
    UnknownNameError,
)
from recurra.layers import LayerState
from recurra.testing import assert_within_eps

B, T, D, H = 3, 6, 5, 4


def test_layers_and_directions_are_scans_side_by_side():
    net = Recurrent("gru", D, [H, 2], bidirectional=True).double()
    x, lengths = torch.randn(B, T, D).double(), torch.tensor([6, 2, 4])
    y, state = net(x, lengths=lengths)
    frames = x.transpose(0, 1)
    for i, (forward, backward) in enumerate(net.layers):
        a, last_a = scan(forward, frames, lengths=lengths)
        b, last_b = scan(backward, frames, lengths=lengths, reverse=True)
        assert_within_eps(state[i].forward.h, last_a.h)
        assert_within_eps(state[i].backward.h, last_b.h)
        frames = torch.cat([a, b], -1)
    assert_within_eps(y, frames.transpose(0, 1))
    assert y.shape == (B, T, net.output_size) == (B, T, 4)
    assert (y[1, 2:] == 0).all()


@pytest.mark.parametrize("cell", [*CELLS, LSTMCell, lambda D, H: GRUCell(D, H, reset="before")])
def test_any_cell_stands_in_a_layer(cell):
    net = Recurrent(cell, D, H, 2, bidirectional=True)
    y, state = net(torch.randn(B, T, D))
    assert y.shape == (B, T, net.output_size)
    assert len(state) == 2
    assert len(net.cells()) == 4


def test_the_state_goes_on_where_it_ended():
    net = Recurrent("lstm", D, H, 2)
    x = torch.randn(B, T, D)
    whole, last = net(x)
    head, middle = net(x[:, :2])
    tail, end = net(x[:, 2:], middle)
    assert_within_eps(torch.cat([head, tail], 1), whole.double())
    assert_within_eps(end[1].forward.c, last[1].forward.c.double())
    assert last[0].backward is None


def test_time_first_and_batch_first_are_the_same_numbers():
    first, last = Recurrent("lstm", D, H, 2), Recurrent("lstm", D, H, 2, batch_first=False)
    last.load_state_dict(first.state_dict())
    x, reset = torch.randn(B, T, D), torch.rand(B, T) < 0.3
    y, _, states = first(x, reset=reset, return_states=True)
    z, _, others = last(x.transpose(0, 1), reset=reset.t(), return_states=True)
    assert_within_eps(y, z.transpose(0, 1).double())
    assert states[1].forward.c.shape == (B, T, H)
    assert_within_eps(states[1].forward.c, others[1].forward.c.transpose(0, 1).double())


def test_dropout_between_layers_follows_the_seed_and_the_mode():
    net, x = Recurrent("lstm", D, 16, 2, dropout=0.5), torch.randn(B, T, D)

    def run(seed):
        torch.manual_seed(seed)
        return net(x)[0]

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    net.eval()
    assert torch.equal(run(0), run(1))
    single = Recurrent("lstm", D, 16, 1, dropout=0.5)
    assert torch.equal(single(x)[0], single(x)[0])  # between layers: one layer has none


def test_gradients_reach_everything():
    net = Recurrent("layer_norm_lstm", D, H, 2, bidirectional=True).double()
    x = torch.randn(B, T, D).double().requires_grad_()
    results = []
    for executor in ("staged", "reference"):
        with options(executor=executor):
            y, _ = net(x, lengths=torch.tensor([6, 0, 3]))
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).double()
        results.append(torch.autograd.grad((y * weights).sum(), [x, *net.parameters()]))
    for a, b in zip(*results, strict=True):
        assert_within_eps(a, b, units=64)
        assert a.abs().sum() > 0


BAD = {
    "unknown cell": (lambda: Recurrent("lstn", D, H), UnknownNameError, r"'lstm'\? \(known"),
    "dropout of 1": (lambda: Recurrent("lstm", D, H, dropout=1.0), OptionError, "dropout must be at least 0"),
    "no layers": (lambda: Recurrent("lstm", D, H, 0), OptionError, "num_layers must be a positive integer"),
    "no units": (lambda: Recurrent("lstm", D, 0), OptionError, "H must be a positive integer"),
    "no inputs": (lambda: Recurrent("lstm", -1, H), OptionError, "D must be a positive integer"),
    "widths and layers": (lambda: Recurrent("lstm", D, [4, 4], 3), OptionError, "2 widths, num_layers=3"),
    "no widths": (lambda: Recurrent("lstm", D, []), OptionError, "0 widths"),
    "a torch cell": (lambda: Recurrent(torch.nn.LSTMCell, D, H), CellDefinitionError, r"must make a recurra\.Cell"),
    "a state of too few layers": (
        lambda: Recurrent("lstm", D, H, 2)(torch.zeros(B, T, D), (LayerState(None),)),
        StateShapeError,
        "one LayerState for each of 2 layers",
    ),
    "a state that is a tensor": (
        lambda: Recurrent("gru", D, H)(torch.zeros(B, T, D), torch.zeros(B, H)),
        StateShapeError,
        "one LayerState for each of 1 layers",
    ),
    "another width": (lambda: Recurrent("lstm", D, H)(torch.zeros(B, T, 9)), InputShapeError, "= .T, B, 5."),
    "lengths beyond T": (
        lambda: Recurrent("lstm", D, H)(torch.zeros(B, T, D), lengths=torch.tensor([1, 2, 7])),
        LengthsError,
        r"lengths\[2\] = 7",
    ),
    "reset of rank 1": (
        lambda: Recurrent("lstm", D, H)(torch.zeros(B, T, D), reset=torch.zeros(T, dtype=torch.bool)),
        ResetError,
        r"reset must be \(B, T\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_say_what_to_do(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_nan_of_the_weights_is_not_blamed_on_the_input():
    net, x = Recurrent("lstm", D, H, 2), torch.randn(B, T, D)
    with torch.no_grad():
        net.cells()[0].bias.fill_(float("nan"))
    assert net(x)[0].isnan().all()
    x[0, 1, 2] = float("nan")
    with pytest.raises(NaNInputError, match=r"frame 1 of sequence 0"):
        net(x)


def test_states_can_be_learned():
    net = Recurrent("lstm", 3, 4, num_layers=2, bidirectional=True, learned_state=True)
    initial = {n: p for n, p in net.named_parameters() if "initial" in n}
    assert len(initial) == 8
    assert all((p == 0).all() for p in initial.values())
    y, _ = net(torch.randn(2, 5, 3), lengths=torch.tensor([5, 0]))
    y.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in initial.values())


@pytest.mark.parametrize("x", [torch.zeros(5), torch.tensor(1.0)], ids=["1-D", "0-D"])
def test_an_input_without_time_is_named(x):
    with pytest.raises(InputShapeError, match="must be"):
        Recurrent("lstm", 3, 4)(x)


@pytest.mark.parametrize("x", [None, np.zeros((2, 5, 3)), [1.0]], ids=["None", "array", "list"])
def test_an_input_that_is_no_tensor_is_named(x):
    with pytest.raises(InputTypeError, match="x must be a tensor"):
        Recurrent("lstm", 3, 4)(x)


def test_shapes_without_numbers():
    y, _ = Recurrent("lstm", 3, 4, device="meta")(torch.empty(2, 5, 3, device="meta"))
    assert y.shape == (2, 5, 4)
    assert y.is_meta
