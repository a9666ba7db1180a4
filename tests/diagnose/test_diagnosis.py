"""Jacobians, gates, the letter, and what is written of them."""

import json
import math

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import recurra
from recurra.cells import CELLS
from recurra.diagnose import WatchGradients, diagnose, gates, gradient_flow, jacobians, runs_of
from recurra.errors import DivergedError, NaNInputError, OptionError
from recurra.train.quiet import quiet_lightning


def test_jacobians_are_autograds_at_the_states_of_the_data():
    torch.manual_seed(0)
    cell, x = recurra.RNNCell(3, 5), torch.randn(6, 1, 3)
    (found,) = jacobians(cell, x, points=100)
    (run,) = runs_of(cell, x)
    (states,) = run.states
    largest = []
    for t in range(6):
        J = torch.autograd.functional.jacobian(lambda h, t=t: cell.step(x[t], recurra.HiddenState(h))[0], states[t])
        largest.append(float(torch.linalg.matrix_norm(J[0, :, 0], 2)))
    assert sorted(found.largest) == pytest.approx(sorted(largest), rel=1e-5)


def test_time_constants_of_an_lstm_are_those_of_its_forget_gate():
    cell = recurra.LSTMCell(3, 4)
    with torch.no_grad():
        cell.weight_ih.zero_(), cell.weight_hh.zero_()
        cell.bias.zero_()
        cell.bias[4:8] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    (found,) = jacobians(cell, torch.randn(9, 2, 3))
    assert found.times["c"] == pytest.approx([-1 / math.log(1 / (1 + math.exp(-b))) for b in range(4)], rel=1e-5)


def test_gates_at_their_ends_and_units_that_do_not_move_are_counted():
    torch.manual_seed(0)
    cell, x = recurra.GRUCell(3, 8), torch.randn(30, 4, 3)
    (before,) = gates(cell, x)
    assert max(before.low.values()) < 0.05
    with torch.no_grad():
        cell.bias[:4] = -20  # the reset gate of four units
        cell.bias[8:10] = 20  # the update gate of two: they keep their first state, which is zero
    (after,) = gates(cell, x)
    assert after.low["sigmoid 1"] == pytest.approx(4 / 16)
    assert after.high["sigmoid 1"] == pytest.approx(2 / 16)
    assert after.dead["h"] == pytest.approx(0.25)


def test_states_that_grow_are_said_to():
    class Sum(recurra.Cell[recurra.HiddenState]):
        def step(self, x, state):
            h = state.h + x
            return h, recurra.HiddenState(h)

    (found,) = gates(Sum(4, 4), torch.ones(50, 2, 4))
    assert found.low == {}
    assert found.norms["h"][:3] == pytest.approx([1, 2, 3])
    assert found.growth["h"] == pytest.approx(48 / 8, rel=0.05)
    assert "states grow with time" in {advice.symptom for advice in diagnose(Sum(4, 4), torch.ones(50, 2, 4)).advice}


def test_the_letter_names_a_symptom_its_evidence_and_what_to_do():
    torch.manual_seed(0)
    x = 0.1 * torch.randn(70, 8, 3)
    (advice,) = diagnose(nn.RNN(3, 32), x).advice
    assert advice.symptom == "gradients vanish"
    assert "is left after one frame" in advice.evidence
    assert 'cell="lstm"' in advice.remedy
    assert str(advice).startswith("layer 1: gradients vanish (")
    (advice,) = diagnose(nn.LSTM(3, 32), x).advice
    assert "recurra.chrono(model, longest=T)" in advice.remedy
    assert diagnose(recurra.chrono(recurra.LSTMCell(3, 32), 70), x).advice == []
    assert "Nothing is wrong" in str(diagnose(recurra.chrono(recurra.LSTMCell(3, 32), 70), x))


@pytest.mark.parametrize("name", sorted(CELLS))
def test_every_cell_can_be_looked_at(name):
    torch.manual_seed(0)
    found = diagnose(recurra.Recurrent(name, 3, 6, bidirectional=True), 0.3 * torch.randn(3, 20, 3))
    assert [layer.flow.name for layer in found.layers] == ["layer 1, forward", "layer 1, backward"]
    text = json.dumps(found.as_json(), allow_nan=False)
    assert json.loads(text)["layers"][0]["flow"]["lags"][-1] == 19


def test_it_is_written_as_a_page_and_as_json(tmp_path):
    torch.manual_seed(0)
    found = diagnose(nn.Sequential(nn.LSTM(3, 8, 2)), torch.randn(30, 4, 3))
    found.save(tmp_path / "d.html")
    page = (tmp_path / "d.html").read_text("utf-8")
    assert page.count("<svg") == 6
    assert "mathdefault" not in page
    assert "gradients vanish in spite of gates" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    found.save(tmp_path / "d.json")
    assert json.loads((tmp_path / "d.json").read_text("utf-8")) == found.as_json()
    with pytest.raises(OptionError, match=r"written as \.html or \.json"):
        found.save(tmp_path / "d.txt")


def test_a_gradient_beyond_all_numbers_explodes(tmp_path):
    torch.manual_seed(0)
    growing = nn.RNN(3, 16, nonlinearity="relu")
    with torch.no_grad():
        growing.weight_hh_l0.copy_(1.1 * torch.eye(16))
    (flow,) = gradient_flow(growing, torch.randn(500, 4, 3))
    assert (flow.verdict, flow.decay_per_frame) == ("exploding", pytest.approx(1.1, rel=0.01))
    with torch.no_grad():
        growing.weight_hh_l0.mul_(2)  # now its states overflow too, and the layer behind it reads infinities
    stack = Pair(growing, nn.RNN(16, 4))
    found = diagnose(stack, torch.randn(500, 4, 3))
    flow = found.layers[0].flow
    assert (flow.verdict, flow.reach, flow.decay_per_frame) == ("exploding", math.inf, pytest.approx(2.2, rel=0.01))
    assert {"gradients explode", "states grow with time"} <= {a.symptom for a in found.advice if "a layer" in a.layer}
    found.save(tmp_path / "d.html")
    json.dumps(found.as_json(), allow_nan=False)


class Pair(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x):
        return self.b(self.a(x)[0])


class Branching(recurra.RNNCell):
    def step(self, x, state):
        return super().step(x if (state.h > 0.1).any() else 2 * x, state)


class Noisy(recurra.RNNCell):
    def step(self, x, state):
        return super().step(x + torch.randn_like(x), state)


@pytest.mark.parametrize("kind", [Branching, Noisy])
@pytest.mark.filterwarnings("ignore:.* runs in the plain loop")
def test_a_cell_that_only_the_plain_loop_runs_can_be_looked_at(kind):
    torch.manual_seed(0)
    (layer,) = diagnose(kind(3, 8), torch.randn(20, 4, 3)).layers
    assert layer.flow.verdict == "vanishing"
    assert 0 < max(layer.jacobians.largest) < 3


def test_weights_and_inputs_that_are_no_numbers_are_refused():
    net, x = nn.GRU(3, 4), torch.randn(9, 2, 3)
    with pytest.raises(NaNInputError, match="layer 1 is given NaN or infinities"):
        diagnose(net, x.masked_fill(x > 1, math.inf))
    diagnose(recurra.GRU(3, 4), torch.cat([x, x * math.nan]), lengths=torch.tensor([9, 4]))  # padding may hold anything
    with torch.no_grad():
        net.weight_hh_l0[0, 0] = math.nan
    with pytest.raises(DivergedError, match=r"layer 1 has weights that are NaN or infinite\n  received: weight_hh"):
        diagnose(net, x)


class Adding(LightningModule):
    def __init__(self):
        super().__init__()
        self.recurrent, self.head = nn.GRU(2, 8, batch_first=True), nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])

    def training_step(self, batch, batch_idx):
        return nn.functional.mse_loss(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_the_callback_watches_and_changes_nothing(tmp_path):
    weights, watch = [], WatchGradients(every=2)
    for callbacks in ([], [watch]):
        torch.manual_seed(0)
        data = TensorDataset(torch.randn(16, 12, 2), torch.randn(16, 1))
        module = Adding()
        with quiet_lightning():
            trainer = Trainer(
                max_epochs=3,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=tmp_path,
                callbacks=callbacks,
            )
            trainer.fit(
                module, DataLoader(data, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(0))
            )
        weights.append([p.detach().clone() for p in module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert [epoch for epoch, _ in watch.history] == [1, 3]
    assert watch.history[0][1][0].name == "recurrent layer 1"
    assert trainer.callback_metrics["decay_per_frame/recurrent_layer_1"] > 0
