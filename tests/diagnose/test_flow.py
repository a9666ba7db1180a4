"""Gradients through time against plain autograd, and against what is known in closed form."""

import math

import pytest
import torch
from torch import nn

import recurra
from recurra.cells import CELLS
from recurra.diagnose import gradient_flow, runs_of
from recurra.diagnose.flow import _anchors, flow_of
from recurra.diagnose.runs import first_rows
from recurra.errors import DataError, OptionError


def orthogonal_rnn(gain, H=32):
    torch.manual_seed(0)
    cell = recurra.RNNCell(3, H)
    with torch.no_grad():
        nn.init.orthogonal_(cell.weight_hh, gain=gain)
    return cell


def brute_force(run, anchors, seed=0):
    """The mean norms, by one backward pass of a plain loop for each anchor."""
    places = _anchors(run, anchors)
    width = sum(s[0].numel() for s in run.state)
    rng = torch.Generator().manual_seed(seed)
    directions = nn.functional.normalize(torch.randn(len(places), width, generator=rng), dim=1)
    norms = torch.full((int(places[:, 0].max()), len(places)), math.nan)
    for n, ((t, b), v) in enumerate(zip(places.tolist(), directions, strict=True)):
        state = tuple(s[b : b + 1] for s in run.state)
        met = []  # the state after each frame
        for frame in range(t + 1):
            if run.reset is not None and run.reset[frame, b]:
                state = tuple(run.cell.initial_state(1))
            leaves = tuple(x[frame, b : b + 1] for x in run.x)
            fixed = (run.cell.Constants(*(c[b : b + 1] for c in run.constants)),) if run.cell.Constants else ()
            given = leaves[0] if run.cell.Input is None else run.cell.Input(*leaves)
            state = tuple(s.requires_grad_() if not s.requires_grad else s for s in state)
            _, new = run.cell.step(given, run.cell.State(*state), *fixed)
            state = tuple(s.clone() for s in new)  # leaves of one state are coordinates: none passes by way of another
            met.append(state)
        last = torch.cat([s.flatten(1) for s in met[-1]], 1)
        earlier = [s for states in met[:-1] for s in states]
        found = iter(torch.autograd.grad((last @ v).sum(), [s for s in earlier if s.requires_grad], allow_unused=True))
        grads = [next(found) if s.requires_grad else None for s in earlier]
        per = len(run.state)
        for k in range(1, t + 1):
            parts = grads[(t - k) * per : (t - k + 1) * per]
            total = sum(float(g.double().square().sum()) for g in parts if g is not None)
            norms[k - 1, n] = math.sqrt(total)
    return norms.nanmean(1)


@pytest.mark.parametrize("name", sorted(CELLS))
def test_each_cell_flows_as_plain_autograd_says(name):
    torch.manual_seed(0)
    cell = CELLS[name](3, 6).eval()
    x = 0.5 * torch.randn(9, 3, 3)
    lengths = torch.tensor([9, 4, 7])
    reset = torch.zeros(9, 3, dtype=torch.bool)
    reset[3, 0] = True
    for arguments in ({}, {"lengths": lengths}, {"lengths": lengths, "reset": reset}):
        (run,) = runs_of(cell, x, **arguments)
        expected = brute_force(first_rows(run, 16), None)
        found = torch.tensor(flow_of(run, anchors=None).norms)
        torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-9)


def test_a_reversed_run_is_the_forward_run_of_what_it_meets():
    torch.manual_seed(0)
    net, x = nn.LSTM(3, 5, bidirectional=True, batch_first=True), torch.randn(4, 8, 3)
    forward, backward = gradient_flow(net, x)
    assert (forward.name, backward.name) == ("layer 1, forward", "layer 1, backward")
    turned = nn.LSTM(3, 5, batch_first=True)
    turned.load_state_dict({k.removesuffix("_reverse"): v for k, v in net.state_dict().items() if "reverse" in k})
    (expected,) = gradient_flow(turned, x.flip(1))
    assert backward.norms == pytest.approx(expected.norms, rel=1e-5)


@pytest.mark.parametrize(("gain", "verdict"), [(0.7, "vanishing"), (1.15, "exploding"), (1.0, "healthy")])
def test_verdicts_of_a_tanh_rnn(gain, verdict):
    (flow,) = gradient_flow(orthogonal_rnn(gain), 0.01 * torch.randn(70, 4, 3))
    assert flow.verdict == verdict


def test_a_chrono_initialised_lstm_is_healthy_and_one_without_forget_bias_is_not():
    torch.manual_seed(0)
    cell, x = recurra.LSTMCell(3, 64), 0.1 * torch.randn(70, 4, 3)
    with torch.no_grad():
        cell.bias.zero_()
    (plain,) = gradient_flow(cell, x)
    (chrono,) = gradient_flow(recurra.chrono(cell, 70), x)
    assert (plain.verdict, chrono.verdict) == ("vanishing", "healthy")
    assert chrono.horizon > 3 * plain.horizon
    assert chrono.half_life > 3 * plain.half_life


@pytest.mark.parametrize("gain", [0.8, 0.95, 1.02])
def test_the_decay_of_a_linear_rnn_is_its_closed_form(gain):
    (flow,) = gradient_flow(Linear(3, 16, gain), torch.randn(60, 2, 3))
    assert flow.decay_per_frame == pytest.approx(gain, rel=0.01)
    assert flow.norms[9] == pytest.approx(gain**10, rel=1e-4)


class Linear(recurra.Cell[recurra.HiddenState]):
    """h = gain Q h + W x, with an orthogonal Q: every gradient shrinks by `gain` in each frame."""

    def __init__(self, D, H, gain):
        super().__init__(D, H)
        self.weight_ih = self.weight("H D")
        self.weight_hh = self.weight("H H", init=lambda w: nn.init.orthogonal_(w, gain=gain))

    def step(self, x, state):
        h = nn.functional.linear(x, self.weight_ih) + nn.functional.linear(state.h, self.weight_hh)
        return h, recurra.HiddenState(h)


def test_looking_back_a_few_frames_is_the_beginning_of_looking_back_many():
    cell, x = orthogonal_rnn(0.9), torch.randn(30, 2, 3)
    (run,) = runs_of(cell, x)
    whole, some = flow_of(run, anchors=1), flow_of(run, anchors=1, max_lag=7)
    assert some.lags == [*range(1, 8)]
    assert some.norms == pytest.approx(whole.norms[:7], rel=1e-5)


def test_the_horizon_is_as_far_as_inputs_count():
    class Delay(recurra.Cell[recurra.HiddenState]):
        """Gives the input of three frames ago."""

        def step(self, x, state):
            h = torch.cat([state.h[:, 1:], x], 1)
            return state.h[:, :1], recurra.HiddenState(h)

    (flow,) = gradient_flow(Delay(1, 3), torch.randn(20, 2, 1))
    assert flow.horizon == 3
    assert [round(v, 5) for v in flow.input_norms[:6]] == [0, 0, 0, 1, 0, 0]


def test_a_model_is_left_as_it_was():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.recurrent = nn.Embedding(9, 4), nn.GRU(4, 5, 2, dropout=0.5, batch_first=True)

        def forward(self, tokens):
            return self.recurrent(self.embedding(tokens))[0]

    model, tokens = Model().train(), torch.randint(9, (3, 12))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flows = gradient_flow(model, tokens)
    assert [flow.name for flow in flows] == ["recurrent layer 1", "recurrent layer 2"]
    assert type(model.recurrent) is nn.GRU
    assert model.training
    assert model.recurrent.training
    assert not model.recurrent._forward_pre_hooks
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert flows == gradient_flow(model, tokens)  # the same seed, the same directions


def test_one_network_in_torchs_form_and_in_ours_flows_alike():
    torch.manual_seed(0)
    ours, x = recurra.LSTM(3, 6, 2), torch.randn(10, 4, 3)
    theirs = nn.LSTM(3, 6, 2)
    theirs.load_state_dict(ours.state_dict())
    for a, b in zip(gradient_flow(ours, x), gradient_flow(theirs, x), strict=True):
        assert a.norms == pytest.approx(b.norms, rel=1e-6)


class Stepped(nn.Module):
    """A layer that is called frame by frame, its state carried, as a decoder with input feeding does."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, state=None):
        for frame in x.split(1, int(self.layer.batch_first)):
            _, state = self.layer(frame, state)


@pytest.mark.parametrize("layer", [nn.LSTM(3, 6, 2), recurra.Recurrent("gru", 3, 6, 2)], ids=lambda m: type(m).__name__)
def test_a_loop_over_frames_is_one_run(layer):
    x = torch.randn(10, 4, 3).transpose(0, int(layer.batch_first))
    whole, stepped = gradient_flow(layer, x), gradient_flow(Stepped(layer), x)
    assert [flow.name.removeprefix("layer ") for flow in stepped] == [flow.name for flow in whole]
    for a, b in zip(whole, stepped, strict=True):
        assert a.norms == pytest.approx(b.norms, rel=1e-6)


def test_what_cannot_be_looked_at_is_said():
    with pytest.raises(OptionError, match="no recurrent layer"):
        gradient_flow(nn.Linear(3, 4), torch.randn(2, 3))
    with pytest.raises(OptionError, match="anchors must be at least 1"):
        gradient_flow(recurra.RNNCell(3, 4), torch.randn(5, 2, 3), anchors=0)
    with pytest.raises(OptionError, match="at least two are needed"):
        gradient_flow(recurra.RNNCell(3, 4), torch.randn(1, 2, 3))
    with pytest.raises(DataError, match="all sequences are empty"):
        gradient_flow(recurra.RNNCell(3, 4), torch.randn(5, 2, 3), lengths=torch.tensor([0, 0]))
