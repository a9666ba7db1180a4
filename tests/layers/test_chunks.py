"""Truncated back-propagation: outputs of one call, gradients that end where a chunk begins."""

import gc
import weakref

import numpy as np
import pytest
import torch

import recurra
from recurra import GRU, LSTM, RNN, Recurrent, tbptt
from recurra.errors import InputTypeError, LengthsError, OptionError, ResetError
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
    for x in (0.0, "frames", None):
        with pytest.raises(InputTypeError, match=rf"an iterable of them(.|\n)*{type(x).__name__}"):
            tbptt(LSTM(D, H), x, chunk=2)
    with pytest.raises(InputTypeError, match=r"a piece is none(.|\n)*float"):
        next(tbptt(LSTM(D, H), [0.0], chunk=2))


def assert_as_the_whole(layer, x, axis, pieces, **told):
    whole, last = layer(x, **told)
    found = list(tbptt(layer, pieces, chunk=3, **told))
    assert_within_eps(torch.cat([y for y, _ in found], axis), whole)
    for got, ref in zip(flat(found[-1][1]), flat(last), strict=True):
        assert_within_eps(got, ref)


@ANY
def test_pieces_that_are_made_one_by_one_are_the_whole(make):
    layer, x, axis = made(make)
    assert_as_the_whole(layer, x, axis, iter(x.split([4, 1, 0, 6], axis)))
    assert_as_the_whole(layer, x, axis, (piece.numpy() for piece in x.split(5, axis)))


def test_lengths_resets_and_gradients_of_pieces():
    layer, x, axis = made(LAYERS["recurrent lstm"])
    assert_as_the_whole(layer, x, axis, x.split(5, axis), lengths=torch.tensor([11, 0, 6]))
    assert_as_the_whole(layer, x, axis, x.split(5, axis), reset=torch.rand(B, T) < 0.3)
    chosen = x.clone().requires_grad_()
    _, second, *_ = (y for y, _ in tbptt(layer, chosen.split(5, axis), chunk=3))
    (slope,) = torch.autograd.grad(second.sum(), chosen)
    assert (slope.abs().sum((0, 2)) > 0).tolist() == [3 <= t < 5 for t in range(T)]


@ANY
def test_frames_in_a_file_are_the_whole(make, tmp_path):
    layer, x, axis = made(make)
    np.save(tmp_path / "frames.npy", x.numpy())
    assert_as_the_whole(layer, x, axis, np.load(tmp_path / "frames.npy", mmap_mode="r"))
    assert_as_the_whole(layer, x, axis, torch.from_numpy(np.load(tmp_path / "frames.npy", mmap_mode="c")))


def test_a_piece_is_gone_when_the_next_but_one_is_made():
    layer, x, _ = made(LAYERS["LSTM"])
    seen = []

    def pieces():
        for piece in x.split(2):
            assert [ref() for ref in seen[:-1] if ref() is not None] == []
            frames = piece.clone()
            seen.append(weakref.ref(frames))
            yield frames

    with torch.no_grad():
        assert sum(len(y) for y, _ in tbptt(layer, pieces(), chunk=3)) == T
    assert len(seen) == 6


@pytest.mark.parametrize("cut", [lambda x: x, lambda x: x.split(4, 1)], ids=["whole", "pieces"])
def test_lengths_and_resets_are_refused_as_by_the_layer(cut):
    layer, x, _ = made(LAYERS["recurrent lstm"])
    for lengths in ([11, 12, 3], [-1, 2, 3], [1.0, 2.0, 3.0], [11, 3]):
        told = {"lengths": torch.tensor(lengths)}
        with pytest.raises(LengthsError) as refused:
            layer(x, **told)
        with pytest.raises(LengthsError) as found:
            list(tbptt(layer, cut(x), chunk=3, **told))
        assert lengths[0] == -1 or str(found.value) == str(refused.value)  # of pieces, T is not known yet
    for reset in (torch.zeros(B, T + 1).bool(), torch.zeros(B, T - 1).bool(), torch.zeros(B, T), torch.zeros(B).bool()):
        with pytest.raises(ResetError):
            list(tbptt(layer, cut(x), chunk=3, reset=reset))
    with pytest.raises(LengthsError, match="a single sequence has its length already"):
        list(tbptt(LSTM(D, H), torch.zeros(T, D), chunk=3, lengths=torch.tensor([3])))
    with pytest.raises(ResetError):
        list(tbptt(LSTM(D, H), torch.zeros(T, D), chunk=3, reset=torch.zeros(T + 1).bool()))


def test_packed_frames_are_refused():
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(T, D), torch.zeros(3, D)])
    with pytest.raises(InputTypeError, match=r"side by side in time(.|\n)*PackedSequence(.|\n)*lengths="):
        list(tbptt(LSTM(D, H), packed, chunk=3))


def test_states_are_cut_off_whatever_their_structure():
    one = torch.ones(2, requires_grad=True) * 3
    state = [recurra.LayerState(recurra.LSTMState(one, one)), (one, None)]
    cut = detached(state)
    assert type(cut) is list
    assert type(cut[0]) is recurra.LayerState
    assert not any(leaf.requires_grad for leaf in flat(cut))
    assert cut[1][1] is None
