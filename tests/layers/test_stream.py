"""Streams equal one scan: frame by frame, piece by piece, row by row."""

import multiprocessing
import threading

import pytest
import torch
from torch import nn

import recurra
from recurra import GRU, LSTM, RNN, Recurrent, options
from recurra.cells import CELLS
from recurra.errors import (
    ExecutorError,
    InputShapeError,
    InputTypeError,
    LengthsError,
    NaNInputError,
    OptionError,
    ResetError,
    StateShapeError,
)
from recurra.kernels.cpu import native

T, B, D, H = 7, 5, 3, 9
LAYERS = {
    "Recurrent": lambda: Recurrent("layer_norm_lstm", D, [H, 4]),
    "LSTM": lambda: LSTM(D, H, num_layers=2),
    "LSTM with a projection": lambda: LSTM(D, H, proj_size=4),
    "GRU": lambda: GRU(D, H, batch_first=True),
    "RNN": lambda: RNN(D, H, bias=False),
}
needs_native = pytest.mark.skipif(native() is None, reason="built without the native machine")


@pytest.fixture(params=["native", "reference"])
def executor(request):
    if request.param == "native" and native() is None:
        pytest.skip("built without the native machine")
    with options(executor=request.param):
        yield request.param


def equal(executor, got, expected):
    if executor == "native":
        assert torch.equal(got, expected)
    else:
        torch.testing.assert_close(got, expected)


def frames(layer, x):
    """Time first."""
    return x.transpose(0, 1) if layer.batch_first else x


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_frames_and_pieces_give_what_one_scan_gives(make, executor):
    torch.manual_seed(0)
    layer = make().eval()
    x = torch.randn(B, T, D) if layer.batch_first else torch.randn(T, B, D)
    with torch.no_grad():
        expected = frames(layer, layer(x)[0])
    stream = layer.stream(batch=B)
    assert stream.layers[0].executor == ("native" if executor == "native" else "scan")
    equal(executor, torch.stack([stream.push(frame).clone() for frame in frames(layer, x)]), expected)
    stream.reset()
    axis = 1 if layer.batch_first else 0
    pieces = [frames(layer, stream.push(piece)).clone() for piece in x.split([1, 4, 2], axis)]
    equal(executor, torch.cat(pieces), expected)


@pytest.mark.parametrize("name", CELLS)
@needs_native
def test_every_cell_streams_bit_for_bit(name):
    torch.manual_seed(0)
    layer = Recurrent(name, D, H, batch_first=False).eval()
    x = torch.randn(T, B, D)
    with torch.no_grad(), options(executor="native"):
        y, state = layer(x)
    stream = layer.stream(batch=B)
    assert torch.equal(torch.stack([stream.push(frame).clone() for frame in x]), y)
    for got, expected in zip(stream.state[0], state[0].forward, strict=True):
        assert torch.equal(got, expected)


def test_wrappers_that_draw_nothing_stream_in_training(executor):
    layer = Recurrent(lambda d, h: recurra.residual(recurra.LSTMCell(d, h)), H, H, batch_first=False)
    x = torch.randn(T, B, H)
    equal(executor, layer.train().stream(batch=B).push(x), layer(x)[0].detach())


def test_weights_are_those_of_its_making(executor):
    layer, x = Recurrent("lstm", D, H, batch_first=False), torch.randn(T, B, D)
    with torch.inference_mode():
        stream = layer.stream(batch=B)
    before = stream.push(x).clone()
    with torch.no_grad():
        layer.cells()[0].weight_hh.mul_(2)
    stream.reset()
    equal(executor, stream.push(x), before)
    stream.reset()
    stream.refresh()
    equal(executor, stream.push(x), layer(x)[0].detach())


def test_states_past_the_end_are_those_of_the_end(executor):
    layer, x, lengths = Recurrent("lstm", D, H, batch_first=False), torch.randn(T, B, D), torch.arange(B) % T
    (expected,) = layer(x, lengths=lengths, return_states=True)[2]
    _, (states,) = layer.stream(batch=B).push(x, lengths=lengths, return_states=True)
    for got, leaf in zip(states, expected.forward, strict=True):
        equal(executor, got, leaf.detach())


@pytest.mark.parametrize("wrap", [lambda c: recurra.zoneout(c, 0.2), lambda c: recurra.recurrent_dropout(c, 0.3)])
def test_wrapped_cells_stream_in_evaluation_and_are_refused_in_training(wrap, executor):
    layer = Recurrent(lambda d, h: wrap(recurra.LSTMCell(d, h)), D, H, batch_first=False)
    with pytest.raises(OptionError, match="draws masks in training"):
        layer.stream()
    x = torch.randn(T, B, D)
    with torch.no_grad():
        expected = layer.eval()(x)[0]
    stream = layer.stream(batch=B)
    equal(executor, torch.stack([stream.push(frame).clone() for frame in x]), expected)
    layer.train()
    with pytest.raises(OptionError, match="draws masks in training"):
        stream.push(x)


def test_lengths_resets_and_states_of_pieces(executor):
    layer = Recurrent("gru", D, [H, 4])
    x, lengths = torch.randn(B, T, D), torch.tensor([7, 0, 3, 1, 7])
    reset = torch.rand(B, T) < 0.3
    with torch.no_grad():
        y, last, states = layer(x, lengths=lengths, reset=reset, return_states=True)
    stream = layer.stream(batch=B)
    got, every = stream.push(x, lengths=lengths, reset=reset, return_states=True)
    equal(executor, got, y)
    for k in range(2):
        valid = (torch.arange(T) < lengths[:, None])[..., None]
        equal(executor, every[k].h * valid, states[k].forward.h * valid)
        equal(executor, stream.state[k].h, last[k].forward.h)
    with torch.no_grad():
        begun = layer(torch.ones(B, 1, D))[0][:, 0]
    equal(executor, stream.push(torch.ones(B, D), reset=torch.ones(B, dtype=torch.bool)), begun)


def test_rows_join_leave_and_are_pushed_apart(executor):
    """Many sequences at random against each alone."""
    torch.manual_seed(0)
    layer = Recurrent("lstm", D, [H, 6], batch_first=False)
    stream, alone = layer.stream(batch=2), {0: layer.stream(), 1: layer.stream()}
    rng = torch.Generator().manual_seed(1)
    draw = lambda n: int(torch.randint(n, (), generator=rng))
    for _ in range(60):
        if draw(3) == 0:
            for row in stream.join(1 + draw(3)):
                assert row not in alone
                alone[row] = layer.stream()
        if draw(3) == 0 and alone:
            gone = sorted(alone)[draw(len(alone))]
            stream.leave([gone])
            del alone[gone]
        assert stream.rows == sorted(alone)
        assert stream.batch == len(alone)
        rows = [r for r in torch.randperm(1 + max(alone, default=0), generator=rng).tolist() if r in alone]
        rows = rows[: len(rows) - draw(2)]
        x = torch.randn(len(rows), D)
        y = stream.push(x, rows=rows) if draw(2) or rows != stream.rows else stream.push(x)
        for k, row in enumerate(rows):
            equal(executor, y[k : k + 1], alone[row].push(x[k : k + 1]))


def test_select_reorder_and_fork(executor):
    layer = Recurrent("gru", D, H, batch_first=False)
    stream = layer.stream(batch=3)
    stream.push(torch.randn(3, D))
    before = stream.state[0].h
    stream.select([2, 0, 2, 1])
    equal(executor, stream.state[0].h, before[[2, 0, 2, 1]])
    assert stream.rows == [0, 1, 2, 3]
    stream.reorder([3, 2, 1, 0])
    equal(executor, stream.state[0].h, before[[1, 2, 0, 2]])
    with pytest.raises(OptionError, match="reorder names 4 rows"):
        stream.reorder([0])
    other, x = stream.fork(), torch.randn(4, D)
    kept = stream.state[0].h
    moved = other.push(x).clone()
    equal(executor, stream.state[0].h, kept)
    equal(executor, stream.push(x), moved)
    other.leave([1])
    assert (stream.batch, other.batch) == (4, 3)


def test_weights_are_read_anew_when_asked(executor):
    layer = LSTM(D, H)
    stream, x = layer.stream(batch=B), torch.randn(B, D)
    other = stream.fork()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.mul_(0.5)
        expected = layer(x[None])[0][0]
    if executor == "native":
        assert not torch.equal(stream.push(x), expected)
        stream.reset()
    stream.refresh()
    equal(executor, stream.push(x), expected)
    if executor == "native":
        assert not torch.equal(other.push(x), expected)


def _goes_on(path, weights, x, results):
    layer = Recurrent("lstm", D, [H, 4], batch_first=False)
    layer.load_state_dict(weights)
    stream = layer.stream(batch=1)
    stream.load(path)
    results.put((stream.rows, stream.push(x).tolist()))


def test_a_saved_stream_goes_on_in_another_process(tmp_path):
    layer = Recurrent("lstm", D, [H, 4], batch_first=False)
    stream = layer.stream(batch=4)
    stream.push(torch.randn(T, 4, D))
    stream.leave([1])
    stream.save(tmp_path / "state")
    x = torch.randn(3, D)
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    weights = {k: v.detach() for k, v in layer.state_dict().items()}
    process = spawn.Process(target=_goes_on, args=(tmp_path / "state", weights, x, results))
    process.start()
    rows, y = results.get(timeout=120)
    process.join()
    assert rows == [0, 2, 3]
    assert torch.equal(torch.tensor(y), stream.push(x))
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_files_that_are_no_saved_stream_of_these_layers(tmp_path):
    stream = Recurrent("gru", D, H).stream()
    (tmp_path / "text").write_text("hello")
    with pytest.raises(StateShapeError, match="is no saved stream"):
        stream.load(tmp_path / "text")
    Recurrent("lstm", D, H).stream().save(tmp_path / "other")
    with pytest.raises(StateShapeError, match="is of other layers"):
        stream.load(tmp_path / "other")
    Recurrent("gru", D, H + 1).stream().save(tmp_path / "wider")
    with pytest.raises(StateShapeError, match=r"state\.h must be"):
        stream.load(tmp_path / "wider")
    with pytest.raises(FileNotFoundError):
        stream.load(tmp_path / "missing")


@needs_native
@pytest.mark.parametrize(("weights", "bound"), [("bfloat16", 0.01), ("int8", 0.02)])
def test_weights_in_fewer_bits_are_those_weights_rounded(weights, bound):
    torch.manual_seed(0)
    layer = LSTM(37, 64)
    stream, x = layer.stream(batch=B, weights=weights), torch.randn(T, B, 37)
    rounded = LSTM(37, 64)
    rounded.load_state_dict(layer.state_dict())
    with torch.no_grad():
        for name, w in rounded.named_parameters():
            if "weight" in name:
                step = w.abs().amax(1, keepdim=True) / 127
                w.copy_(w.bfloat16().float() if weights == "bfloat16" else (w / step).round() * step)
        exact, whole = rounded(x)[0], layer(x)[0]
    y = torch.stack([stream.push(frame).clone() for frame in x])
    torch.testing.assert_close(y, exact, atol=1e-5, rtol=1e-5)
    assert 1e-5 < (y - whole).norm() / whole.norm() < bound
    with options(weights=weights):
        told, plain = layer.stream(batch=B), layer.stream(batch=B, weights="float")
    assert [one.layers[0].weights for one in (stream, told, plain)] == [weights, weights, "float"]
    for frame, rounded_frame, whole_frame in zip(x, y, whole, strict=True):  # outside: that of its making holds
        assert torch.equal(told.push(frame), rounded_frame)
        assert torch.equal(plain.push(frame), whole_frame)


@needs_native
def test_memory_does_not_grow_with_frames():
    stream = LSTM(16, 32).stream(batch=2)
    x = torch.randn(2, 16)
    y = stream.push(x)
    used, where = native().used(), y.data_ptr()
    for _ in range(2000):
        assert stream.push(x).data_ptr() == where
    assert native().used() == used


@needs_native
def test_streams_of_several_threads_do_not_disturb_each_other():
    layer, x = LSTM(D, H), torch.randn(200, 1, D)
    with torch.no_grad():
        expected = layer(x)[0]
    got = {}

    def run(k):
        stream = layer.stream()
        got[k] = torch.stack([stream.push(frame).clone() for frame in x])

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(torch.equal(got[k], expected) for k in range(4))


def test_what_does_not_fit_is_said():
    layer = Recurrent("lstm", D, H)
    stream = layer.stream(batch=2)
    with pytest.raises(OptionError, match="runs both ways"):
        Recurrent("lstm", D, H, bidirectional=True).stream()
    with pytest.raises(OptionError, match="batch must be"):
        layer.stream(batch=-1)
    with pytest.raises(OptionError, match="weights must be one of"):
        layer.stream(weights="int4")
    with pytest.raises(InputTypeError, match="a frame is a tensor"):
        stream.push([0.0] * D)
    with pytest.raises(InputShapeError, match="a push is of 2 sequences"):
        stream.push(torch.zeros(3, D))
    with pytest.raises(InputShapeError, match="x must be"):
        stream.push(torch.zeros(2, D + 1))
    with pytest.raises(OptionError, match="no sequence has this row"):
        stream.push(torch.zeros(1, D), rows=[2])
    with pytest.raises(OptionError, match="a row is named twice"):
        stream.push(torch.zeros(2, D), rows=[1, 1])
    with pytest.raises(InputShapeError, match="lengths are of a piece"):
        stream.push(torch.zeros(2, D), lengths=torch.tensor([1, 1]))
    with pytest.raises(LengthsError, match="lengths must be between"):
        stream.push(torch.zeros(2, 1, D), lengths=torch.tensor([1, 2]))
    with pytest.raises(ResetError, match="reset must be"):
        stream.push(torch.zeros(2, D), reset=[True, False])
    with pytest.raises(NaNInputError, match="the input holds NaN"):
        stream.push(torch.tensor([[0.0] * D, [float("nan")] * D]))
    with pytest.raises(OptionError, match="computed with in float32"):
        layer.double().stream(weights="int8")


@needs_native
def test_fewer_bits_need_the_native_machine():
    with options(executor="reference"), pytest.raises(ExecutorError, match="need the native machine"):
        LSTM(D, H).stream(weights="int8")


def test_infinity_and_no_sequences_pass(executor):
    stream = nn.Module.eval(GRU(D, H)).stream(batch=0)
    assert stream.push(torch.zeros(0, D)).shape == (0, H)
    rows = stream.join(2)
    assert rows == [0, 1]
    assert stream.push(torch.full((2, D), float("inf"))).shape == (2, H)


def test_nan_of_the_weights_is_not_blamed_on_the_input(executor):
    layer = Recurrent("gru", D, [H, 4], batch_first=False)
    with torch.no_grad():
        layer.cells()[0].bias.fill_(float("nan"))
    assert layer.stream().push(torch.zeros(1, D)).isnan().all()


def test_a_piece_in_which_no_sequence_has_a_frame_changes_nothing(executor):
    stream = Recurrent("lstm", D, H).stream(batch=2)
    stream.push(torch.randn(2, D))
    before = stream.state[0]
    y = stream.push(torch.full((2, 3, D), float("nan")), lengths=torch.zeros(2, dtype=torch.int64))
    assert (y == 0).all()
    assert torch.equal(stream.state[0].h, before.h)
