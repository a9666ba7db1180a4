"""Truncated back-propagation: outputs of one call, gradients that end where a chunk begins."""

import gc
import weakref

import pytest
import torch

import recurra
from recurra import GRU, LSTM, RNN, Recurrent, tbptt
from recurra.errors import InputTypeError, OptionError
from recurra.layers.chunks import detached
from recurra.testing import assert_within_eps

B, T, D, H = 3, 11, 5, 4
LAYERS = {
    "recurrent lstm": lambda: Recurrent("lstm", D, H, 2),
    "recurrent gru, time first": lambda: Recurrent("gru", D, H, 2, batch_first=False),
    "LSTM": lambda: LSTM(D, H, 2),
    "GRU, batch first": lambda: GRU(D, H, batch_first=True),
    "RNN": lambda: RNN(D, H),
    "torch's own": lambda: torch.nn.LSTM(D, H),
}
ANY = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def made(make):
    torch.manual_seed(0)
    layer = make().double()
    axis = 1 if layer.batch_first else 0
    x = torch.randn(*((B, T) if axis else (T, B)), D, dtype=torch.float64)
    return layer, x, axis


def flat(state):
    if isinstance(state, torch.Tensor):
        return [state]
    return [leaf for part in state or () for leaf in flat(part)]


@ANY
@pytest.mark.parametrize("chunk", [1, 4, 11, 50])
def test_outputs_and_the_last_state_are_those_of_one_call(make, chunk):
    layer, x, axis = made(make)
    pieces = [(y, state) for y, state in tbptt(layer, x, chunk=chunk)]
    whole, last = layer(x)
    assert [y.shape[axis] for y, _ in pieces] == [min(chunk, T - at) for at in range(0, T, chunk)]
    assert_within_eps(torch.cat([y for y, _ in pieces], axis), whole)
    for got, ref in zip(flat(pieces[-1][1]), flat(last), strict=True):
        assert_within_eps(got, ref)
        assert not got.requires_grad


@ANY
def test_a_chunk_of_the_whole_gives_the_gradients_of_the_whole(make):
    layer, x, _ = made(make)
    cotangent = torch.randn_like(layer(x)[0])
    (layer(x)[0] * cotangent).sum().backward()
    expected = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    for y, _ in tbptt(layer, x, chunk=T):
        (y * cotangent).sum().backward()
    for p, ref in zip(layer.parameters(), expected, strict=True):
        assert_within_eps(p.grad, ref)


@ANY
def test_gradients_end_where_a_chunk_begins(make):
    layer, x, axis = made(make)
    x.requires_grad_()
    outputs = [y for y, _ in tbptt(layer, x, chunk=4)]
    (slope,) = torch.autograd.grad(outputs[1].sum(), x)
    reached = slope.abs().sum((2, 1 - axis)) > 0
    assert reached.tolist() == [4 <= t < 8 for t in range(T)]


def test_lengths_of_each_chunk():
    layer, x, _ = made(LAYERS["recurrent lstm"])
    lengths = torch.tensor([11, 0, 6])
    whole, last = layer(x, lengths=lengths)
    pieces = list(tbptt(layer, x, chunk=4, lengths=lengths))
    assert_within_eps(torch.cat([y for y, _ in pieces], 1), whole)
    for got, ref in zip(flat(pieces[-1][1]), flat(last), strict=True):
        assert_within_eps(got, ref)


def test_resets_of_each_chunk():
    layer, x, _ = made(LAYERS["LSTM"])
    reset = torch.rand(T, B) < 0.3
    pieces = list(tbptt(layer, x, chunk=3, reset=reset))
    assert_within_eps(torch.cat([y for y, _ in pieces]), layer(x, reset=reset)[0])


def test_a_state_to_begin_with_is_reached_by_the_first_chunk_alone():
    layer, x, _ = made(LAYERS["LSTM"])
    state = tuple(torch.randn(2, B, H, dtype=torch.float64, requires_grad=True) for _ in range(2))
    first, second = (y for y, _ in tbptt(layer, x, state, chunk=6))
    assert_within_eps(torch.cat([first, second]), layer(x, state)[0])
    assert torch.autograd.grad(first.sum(), state[0], retain_graph=True)[0].abs().sum() > 0
    assert torch.autograd.grad(second.sum(), state[0], allow_unused=True)[0] is None


def test_one_sequence_as_torch_takes_it():
    layer, x, _ = made(LAYERS["GRU, batch first"])
    pieces = [y for y, _ in tbptt(layer, x[0], chunk=4)]
    assert_within_eps(torch.cat(pieces), layer(x[0])[0])


def test_weights_may_change_between_chunks_and_old_graphs_go():
    layer, x, _ = made(LAYERS["recurrent lstm"])
    optimizer, seen = torch.optim.SGD(layer.parameters(), lr=0.1), []
    for y, _ in tbptt(layer, x, chunk=3):
        gc.collect()
        assert [ref() for ref in seen if ref() is not None] == []
        seen.append(weakref.ref(y))
        optimizer.zero_grad()
        y.square().sum().backward()
        optimizer.step()
        del y
    assert len(seen) == 4


@pytest.mark.parametrize("chunk", [0, -1, 2.0, True])
def test_a_chunk_must_be_a_positive_integer(chunk):
    layer, x, _ = made(LAYERS["LSTM"])
    with pytest.raises(OptionError, match="chunk must be a positive integer"):
        tbptt(layer, x, chunk=chunk)


def test_layers_that_run_both_ways_are_refused():
    with pytest.raises(OptionError, match=r"LSTM runs both ways(.|\n)*bidirectional=False"):
        tbptt(LSTM(D, H, bidirectional=True), torch.zeros(T, B, D), chunk=2)
    with pytest.raises(InputTypeError, match=r"tbptt cuts a tensor(.|\n)*list"):
        tbptt(LSTM(D, H), [0.0], chunk=2)


def test_states_are_cut_off_whatever_their_structure():
    one = torch.ones(2, requires_grad=True) * 3
    state = [recurra.LayerState(recurra.LSTMState(one, one)), (one, None)]
    cut = detached(state)
    assert type(cut) is list
    assert type(cut[0]) is recurra.LayerState
    assert not any(leaf.requires_grad for leaf in flat(cut))
    assert cut[1][1] is None
