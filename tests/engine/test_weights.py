"""Matrices held in fewer bits: what is computed is the same scan of those matrices, rounded."""

import copy

import pytest
import torch
from test_conformance import MAKES
from test_native import _cell, _draw, _run, _same

import recurra
from recurra.engine import options, scan
from recurra.errors import ExecutorError, OptionError
from recurra.kernels.cpu import native
from recurra.testing import assert_within_eps

pytestmark = pytest.mark.skipif(native() is None, reason="built without the native machine")
NAMES = sorted(MAKES)
T, B, D, H = 11, 9, 5, 13


def _bfloat16(w):
    return w.bfloat16().to(w.dtype)


def _int8(w):
    step = w.abs().amax(1, keepdim=True) / 127
    return torch.where(step > 0, (w / step).round() * step, 0.0)


def _rounded(cell, by):
    """A twin whose matrices are rounded; what is no matrix stays."""
    twin = copy.deepcopy(cell)
    with torch.no_grad():
        for name, weight in twin.named_parameters():
            if weight.dim() >= 2 and name not in ("bias", "tau"):  # one a head
                weight.copy_(by(weight))
    return twin


def _is_of_leaves(cell):
    """Whether each matrix of the step is made of the cell's own numbers, so that to round those is to round it."""
    return type(cell).__name__ != "LRUCell"  # its matrix is scaled, row by row, by what its eigenvalues say


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_the_scan_of_rounded_matrices_in_both_directions(name):
    cell = _cell(name)
    if not _is_of_leaves(cell):
        pytest.skip("its matrices are computed")
    drawn = _draw(cell, T, B)
    lengths = torch.randint(0, T + 1, (B,), generator=torch.Generator().manual_seed(0))
    for arguments in ({}, {"lengths": lengths, "reverse": True}):
        expected = _run(_rounded(cell, _bfloat16), *drawn, **arguments)
        for threads in (1, 2):
            with options(weights="bfloat16"):
                got = _run(cell, *drawn, threads=threads, **arguments)
            for part, other in zip(got, expected, strict=True):
                for a, b in zip(part, other, strict=True):
                    assert (a is None) == (b is None)
                    if a is not None:
                        assert_within_eps(a, b.double(), units=64)


@pytest.mark.parametrize("name", ["rnn", "lstm", "min_lstm", "sru", "layer_norm_lstm"])
@pytest.mark.parametrize("width", [13, 200])
def test_int8_is_the_scan_of_rounded_rows(name, width):
    cell = _cell(name, H=width)
    (x,), state, _ = _draw(cell, T, B)
    with torch.no_grad():
        expected, _ = scan(_rounded(cell, _int8), x, cell.State(*state))
        with options(weights="int8"):
            got, _ = scan(cell, x, cell.State(*state))
    assert_within_eps(got, expected.double(), units=64)


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", NAMES)
def test_a_sequence_has_the_same_bits_alone(name, weights):
    cell = _cell(name)
    x, state, constants = _draw(cell, T, B)
    give = lambda rows: (
        x[0][:, rows] if cell.Input is None else cell.Input(*[v[:, rows] for v in x]),
        cell.State(*[v[rows] for v in state]),
    )
    fixed = lambda rows: None if cell.Constants is None else cell.Constants(*[v[rows] for v in constants])
    with torch.no_grad(), options(weights=weights):
        whole, last = scan(cell, *give(slice(None)), constants=fixed(slice(None)))
        alone, own = scan(cell, *give([4]), constants=fixed([4]))
    _same([whole[:, [4]], *(s[[4]] for s in last)], [alone, *own])


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_a_layer_in_bfloat16_sums_in_float32(kind):
    torch.manual_seed(0)
    layer = recurra.Recurrent(kind, D, H, dtype=torch.bfloat16)
    x = torch.randn(B, T, D, dtype=torch.bfloat16)
    y, _ = layer(x)
    with options(executor="reference"):
        expected, _ = copy.deepcopy(layer).float()(x.float())
    assert y.dtype is torch.bfloat16
    assert torch.equal(y, expected.bfloat16()) or (y - expected).abs().max() <= torch.finfo(torch.bfloat16).eps
    y.float().square().sum().backward()
    assert all(p.grad.dtype is torch.bfloat16 and p.grad.isfinite().all() for p in layer.parameters())


def test_autocast_rounds_matrices_and_nothing_else():
    torch.manual_seed(0)
    layer, x = recurra.LSTM(D, H, batch_first=True), torch.randn(B, T, D)
    results = []
    for context in (torch.autocast("cpu", torch.bfloat16), options(weights="bfloat16")):
        layer.zero_grad()
        with context:
            y, _ = layer(x)
        assert y.dtype is torch.float32
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in layer.parameters())])
    _same(*results)
    with options(executor="native"):
        assert not torch.equal(results[0][0], layer(x)[0])


def test_second_derivatives_are_those_of_rounded_matrices():
    cell = _cell("lstm")
    (x,), state, _ = _draw(cell, T, B)

    def second(cell, weights):
        leaf = x.clone().requires_grad_()
        with options(weights=weights):
            y, _ = scan(cell, leaf, cell.State(*state))
            (first,) = torch.autograd.grad(y.square().sum(), leaf, create_graph=True)
            return torch.autograd.grad(first.square().sum(), [leaf, *cell.parameters()])

    for a, b in zip(second(cell, "bfloat16"), second(_rounded(cell, _bfloat16), "float"), strict=True):
        assert_within_eps(a, b.double(), units=64)


@pytest.mark.parametrize("save", ["sqrt", 20_000])
def test_pieces_of_time_hold_the_same_matrices(save):
    cell = _cell("gru")
    drawn = _draw(cell, 700, 2)
    with options(weights="bfloat16"):
        expected = _run(cell, *drawn)
        with options(save=save):
            got = _run(cell, *drawn)
    _same(got[0], expected[0])
    _same(got[1], expected[1])


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_it_is_the_same(backend):
    layer, x = recurra.Recurrent("lstm", D, H), torch.randn(B, T, D)
    with torch.no_grad():
        run = torch.compile(layer, fullgraph=True, backend=backend)
        for context in (torch.autocast("cpu", torch.bfloat16), options(weights="float")):
            with context:
                assert torch.equal(run(x)[0], layer(x)[0])


def test_exported_it_is_the_same():
    layer, x = recurra.Recurrent("lstm", D, H).eval(), torch.randn(B, T, D)
    with torch.no_grad(), options(weights="int8"):
        program = torch.export.export(layer, (x,))
        expected = layer(x)[0]
    with torch.no_grad():
        assert torch.equal(program.module()(x)[0], expected)


def test_a_stream_of_a_layer_in_bfloat16_is_one_scan():
    layer, x = recurra.Recurrent("lstm", D, H, dtype=torch.bfloat16), torch.randn(B, T, D, dtype=torch.bfloat16)
    stream = layer.stream(batch=B)
    with torch.no_grad():
        assert torch.equal(torch.stack([stream.push(x[:, t]).clone() for t in range(T)], 1), layer(x)[0])


def test_what_does_not_go_together_is_said():
    cell, x = recurra.LSTMCell(D, H), torch.randn(T, B, D)
    with options(weights="int8"), pytest.raises(OptionError, match=r"(?s)are for inference.*no_grad"):
        scan(cell, x)
    with options(weights="bfloat16"), pytest.raises(OptionError, match="a cell in float64"):
        scan(copy.deepcopy(cell).double(), x.double())
    with (
        options(weights="bfloat16", executor="staged"),
        pytest.raises(ExecutorError, match=r"need the native machine: the options choose staged"),
    ):
        scan(cell, x)
    with (
        pytest.raises(OptionError, match=r"(?s)weights must be one of float, bfloat16, int8.*'int4'"),
        options(weights="int4"),
    ):
        pass
