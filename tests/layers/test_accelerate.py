"""accelerate: layers change their class, and nothing else changes."""

import copy
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from recurra import GRU, LSTM, RNN, accelerate
from recurra.errors import OptionError
from recurra.testing import assert_within_eps


class Own(nn.LSTM):
    """A user's own subclass, whose forward is not torch.nn's."""

    def forward(self, input, hx=None):
        y, state = super().forward(input, hx)
        return 2 * y, state


class Speech(nn.Module):
    """As users write them: nested, shared, hooked, parametrised, packed."""

    def __init__(self):
        super().__init__()
        self.front = nn.Sequential(nn.Linear(5, 6), nn.ReLU())
        self.encoder = nn.LSTM(6, 7, num_layers=2, bidirectional=True, batch_first=True)
        self.blocks = nn.ModuleList([nn.GRU(14, 14, batch_first=True) for _ in range(2)])
        self.blocks.append(self.blocks[0])  # one layer in two places
        self.tail = parametrizations.weight_norm(nn.RNN(14, 4, batch_first=True), "weight_hh_l0")
        self.odd = Own(4, 4, batch_first=True)
        self.calls = []
        self.encoder.register_forward_hook(lambda *_: self.calls.append("encoder"))

    def forward(self, x, lengths):
        x = self.front(x)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        x, _ = pad_packed_sequence(self.encoder(packed)[0], batch_first=True)
        for block in self.blocks:
            x = x + block(x)[0]
        return self.odd(self.tail(x)[0])[0]


def training_steps(model, steps=3):
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, lengths = torch.randn(4, 9, 5), torch.tensor([3, 9, 1, 7])
    for _ in range(steps):
        optimizer.zero_grad()
        model(x, lengths).square().mean().backward()
        optimizer.step()
    return model(x, lengths)


def test_a_model_is_the_same_afterwards():
    torch.manual_seed(0)
    plain = Speech()
    model = copy.deepcopy(plain)
    model.calls = []
    model.encoder._forward_hooks.clear()
    model.encoder.register_forward_hook(lambda *_: model.calls.append("encoder"))
    parameters, optimizer = list(model.parameters()), torch.optim.SGD(model.parameters(), lr=0.1)
    model.eval()
    found = accelerate(model, only_if_faster=False)
    assert found.model is model
    assert set(found.swapped) == {"encoder", "blocks.0", "blocks.1", "blocks.2", "tail"}
    assert set(found.left) == {"odd"}
    assert "may compute something else" in found.left["odd"]
    assert isinstance(model.encoder, LSTM)
    assert isinstance(model.blocks[1], GRU)
    assert model.blocks[2] is model.blocks[0]
    assert isinstance(model.tail, RNN)
    assert parametrize.is_parametrized(model.tail, "weight_hh_l0")
    assert not model.encoder.training
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(a is b for a, b in zip(parameters, optimizer.param_groups[0]["params"], strict=True))
    assert list(model.state_dict()) == list(plain.state_dict())
    model.train()
    got, expected = training_steps(model), training_steps(plain)
    assert_within_eps(got, expected.double(), 2000)  # three steps of Adam divide by small numbers
    assert model.calls == ["encoder"] * 4
    assert "swapped  encoder: as asked for\n" in str(found)
    assert "left     odd: its class Own is not torch.nn's own" in str(found)


def test_a_layer_itself_is_swapped_and_a_second_time_left():
    layer = nn.LSTM(3, 4)
    layer.weight_hh_l0.requires_grad_(False)
    x = torch.randn(5, 2, 3)
    expected, _ = layer(x)
    found = accelerate(layer, only_if_faster=False)
    assert found.model is layer
    assert type(layer) is LSTM
    assert not layer.weight_hh_l0.requires_grad
    assert_within_eps(layer(x, lengths=torch.tensor([5, 5]))[0], expected.double())
    assert accelerate(layer).left == {"": "it is one of ours already"}


def test_only_what_gains_is_swapped(monkeypatch):
    accelerating = sys.modules["recurra.layers.accelerate"]  # in the package its name is the function's
    model = nn.ModuleDict({"a": nn.GRU(3, 4), "b": nn.GRU(3, 5)})
    seconds = {4: (0.002, 0.001), 5: (0.001, 0.002)}
    monkeypatch.setattr(accelerating, "_measured", lambda mode, D, H, *_: seconds[H])
    found = accelerate(model)
    assert found.swapped == {"a": "packed input takes 1 ms where torch.nn takes 2 ms here"}
    assert found.left == {"b": "packed input takes 2 ms where torch.nn takes 1 ms here"}
    assert type(model["b"]) is nn.GRU


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_the_measurement_itself_runs(kind):
    before = torch.random.get_rng_state()
    layer = kind(3, 4, nonlinearity="relu") if kind is nn.RNN else kind(3, 4)
    torch.random.set_rng_state(before)
    found = accelerate(layer)
    assert len(found.swapped) + len(found.left) == 1
    assert "ms where torch.nn takes" in next(iter({**found.swapped, **found.left}.values()))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_compiled_and_quantised_layers_are_left():
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(nn.LSTM(3, 4))
    model = nn.ModuleList([scripted, torch.ao.nn.quantizable.LSTM(3, 4)])
    left = accelerate(model).left
    assert set(left) == {"0", "1"}
    assert "compiled TorchScript" in left["0"]
    assert left["1"] == "it is quantised"


def test_what_only_sounds_recurrent_is_not_looked_at():
    class GRUBlock(nn.Linear):
        pass

    found = accelerate(GRUBlock(2, 2))
    assert not found.swapped
    assert not found.left


def test_what_is_no_module_is_refused():
    with pytest.raises(OptionError, match=r"takes a torch.nn.Module(.|\n)*list"):
        accelerate([nn.LSTM(3, 4)])


def test_a_model_without_recurrent_layers():
    assert str(accelerate(nn.Linear(2, 2))) == "there is no recurrent layer of torch.nn in this model"


def test_layers_that_a_swap_would_not_change_or_would_break_are_left():
    replaced = nn.LSTM(3, 4)
    replaced.forward = lambda x: x
    model = nn.ModuleDict({"a": nn.DataParallel(nn.GRU(3, 4)), "b": replaced, "c": nn.RNN(3, 4, device="meta")})
    for only_if_faster in (True, False):
        found = accelerate(model, only_if_faster=only_if_faster)
        assert not found.swapped
        assert "inside of nn.DataParallel" in found.left["a.module"]
        assert "forward was replaced" in found.left["b"]
        assert "meta device" in found.left["c"]
