"""The network of text classification: padding takes no part, and each pooling is what it says."""

import pytest
import torch

from recurra.data import Batch
from recurra.errors import UnknownNameError
from recurra.tasks.classify import cross_entropy
from recurra.tasks.text_network import POOLINGS, TextNetwork

TOKENS = torch.tensor([[5, 7, 3, 2, 9], [3, 2, 1, 0, 0], [8, 0, 0, 0, 0]])
LENGTHS = torch.tensor([5, 3, 1])


def network(**changes):
    torch.manual_seed(0)
    options = {"cell": "lstm", "hidden_size": 6, "embedding_size": 4, "num_layers": 2, "bidirectional": True}
    return TextNetwork(12, 3, **options | changes).double()


@pytest.mark.parametrize("cell", ["lstm", "gru", "lstmp", "min_gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "mean_max", "last_mean_max"])
def test_each_row_alone_gives_what_it_gives_in_a_batch(cell, bidirectional, pooling):
    net = network(cell=cell, bidirectional=bidirectional, pooling=pooling).eval()
    together = net(TOKENS, LENGTHS)
    alone = [net(TOKENS[i : i + 1, :n], LENGTHS[i : i + 1]) for i, n in enumerate(LENGTHS.tolist())]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_what_lies_past_the_lengths_is_never_read(pooling):
    net = network(pooling=pooling).eval()
    other = TOKENS.clone()
    other[torch.arange(5) >= LENGTHS[:, None]] = 11
    assert torch.equal(net(TOKENS, LENGTHS), net(other, LENGTHS))
    net(TOKENS, LENGTHS).square().sum().backward()
    assert net.embedding.weight.grad[0].abs().sum() == 0


def test_poolings_by_their_definition():
    y = torch.randn(3, 5, 4, dtype=torch.float64)
    y[torch.arange(5) >= LENGTHS[:, None]] = 0
    rows = [row[:n] for row, n in zip(y, LENGTHS.tolist(), strict=True)]
    expected = {
        "last": torch.stack([torch.cat([row[-1, :3], row[0, 3:]]) for row in rows]),
        "mean": torch.stack([row.mean(0) for row in rows]),
        "max": torch.stack([row.max(0).values for row in rows]),
    }
    assert expected.keys() == POOLINGS.keys()
    for name, pool in POOLINGS.items():
        torch.testing.assert_close(pool(y, LENGTHS, 3), expected[name])


def test_the_last_frame_is_the_final_state():
    net = network(num_layers=1, pooling="last").eval()
    x = net.embedding(TOKENS)
    y, (state,) = net.recurrent(x, lengths=LENGTHS)
    expected = torch.cat([state.forward.h, state.backward.h], -1)
    torch.testing.assert_close(POOLINGS["last"](y, LENGTHS, net.forward_width), expected)


def test_word_dropout_is_of_training_only_and_of_its_size():
    net = network(word_dropout=0.3, hidden_size=2, num_layers=1)
    seen = []
    net.embedding.register_forward_hook(lambda _module, args, _out: seen.append(args[0]))
    tokens = torch.full((50, 200), 7)
    lengths = torch.full((50,), 200)
    net.train()(tokens, lengths)
    net.eval()(tokens, lengths)
    dropped = (seen[0] == 1).double().mean()
    assert abs(float(dropped) - 0.3) < 4 * (0.3 * 0.7 / tokens.numel()) ** 0.5
    assert set(seen[0].unique().tolist()) == {1, 7}
    assert torch.equal(seen[1], tokens)


def test_an_unknown_pooling_is_named():
    with pytest.raises(UnknownNameError, match=r"no pooling(.|\n)*'maxx'(.|\n)*max"):
        network(pooling="maxx")


def test_adversarial_training_moves_word_vectors_against_the_loss():
    torch.manual_seed(0)
    network = TextNetwork(20, 2, cell="gru", hidden_size=8, embedding_size=5, pooling="mean_max")
    batch = Batch(torch.randint(2, 20, (6, 7)), torch.tensor([7, 3, 5, 7, 1, 2]), torch.tensor([0, 1, 0, 1, 1, 0]))
    plain, moved = cross_entropy(network, batch), cross_entropy(network, batch, adversarial=2.0)
    assert moved.loss > plain.loss
    assert moved.figures["accuracy"] == plain.figures["accuracy"]
    moved.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    network.eval()
    assert cross_entropy(network, batch, adversarial=2.0).loss == cross_entropy(network, batch).loss
