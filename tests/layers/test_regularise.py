"""The parts of AWD-LSTM: each drops what it says, in training alone, and keeps the mean."""

import pytest
import torch
from torch import nn

from recurra import Recurrent
from recurra.errors import OptionError
from recurra.layers import (
    LockedDropout,
    TiedHead,
    activation_penalty,
    embedded,
    locked_dropout,
    temporal_activation_penalty,
)


@pytest.mark.parametrize("time", [0, 1])
def test_locked_dropout_is_one_mask_a_sequence(time):
    x = torch.ones(40, 50, 30)
    y = locked_dropout(x, 0.3, time=time)
    assert torch.equal(y, y.narrow(time, 0, 1).expand_as(y))
    mask = y.select(time, 0)
    assert {round(v, 5) for v in mask.unique().tolist()} == {0.0, round(1 / 0.7, 5)}
    assert not torch.equal(mask[0], mask[1]), "sequences draw their own"
    dropped = (mask == 0).double().mean().item()
    assert abs(dropped - 0.3) < 4 * (0.3 * 0.7 / mask.numel()) ** 0.5


def test_locked_dropout_as_a_module():
    x = torch.randn(4, 5, 6)
    module = LockedDropout(0.5, batch_first=False)
    torch.manual_seed(3)
    y = module(x)
    torch.manual_seed(3)
    assert torch.equal(y, locked_dropout(x, 0.5, time=0))
    assert module.eval()(x) is x
    assert "p=0.5" in repr(module)


@pytest.mark.parametrize("call", [lambda p: LockedDropout(p), lambda p: locked_dropout(torch.ones(1, 1, 1), p)])
@pytest.mark.parametrize("p", [1, -0.1, True, "0.5"])
def test_a_part_is_at_least_0_and_below_1(call, p):
    with pytest.raises(OptionError, match="p must be at least 0 and less than 1"):
        call(p)


def test_layers_drop_between_them_the_same_units_in_all_frames():
    torch.manual_seed(0)
    net = Recurrent("rnn", 3, [40, 5], dropout=0.5, locked_dropout=True, batch_first=False)
    second = net.layers[1][0].weight_ih
    x = torch.randn(7, 2, 3)
    y, _ = net(x)
    # What the second layer never saw has no gradient in its input matrix.
    (slope,) = torch.autograd.grad(y[:, 0].sum(), second)
    dropped = (slope == 0).all(0).sum().item()
    assert 8 < dropped < 32
    assert torch.equal(net.eval()(x)[0], net(x)[0])


def test_embedding_dropout_drops_rows_of_the_vocabulary():
    weight = torch.ones(2000, 3, requires_grad=True)
    tokens = torch.arange(2000).repeat(2, 1)
    x = embedded(tokens, weight, p=0.25)
    assert torch.equal(x[0], x[1])
    assert torch.equal(x[..., :1].expand_as(x), x)
    dropped = (x[0, :, 0] == 0).double().mean().item()
    assert abs(dropped - 0.25) < 4 * (0.25 * 0.75 / 2000) ** 0.5
    x.sum().backward()
    assert torch.equal(weight.grad == 0, (x[0] == 0))
    assert torch.equal(embedded(tokens, weight, 0.25, training=False), nn.functional.embedding(tokens, weight))


def test_penalties_by_their_definition():
    y = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(activation_penalty(y), (y**2).sum() / 30)
    torch.testing.assert_close(temporal_activation_penalty(y), ((y[:, 1:] - y[:, :-1]) ** 2).sum() / 24)
    swapped = temporal_activation_penalty(y.transpose(0, 1), time=0)
    torch.testing.assert_close(swapped, temporal_activation_penalty(y))
    assert temporal_activation_penalty(y[:, :1]) == 0


def test_a_tied_head_scores_by_the_embedding_and_holds_it_not():
    embedding, head = nn.Embedding(7, 3), TiedHead(7)
    y = torch.randn(2, 4, 3)
    torch.testing.assert_close(head(y, embedding.weight), y @ embedding.weight.t())
    assert [*head.state_dict()] == ["bias"]
