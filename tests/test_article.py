"""The textbook's network in NumPy and RNNCell are one and the same, to the last bits."""

import article_rnn
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

import recurra
from recurra.testing import assert_within_eps

T, B, D, H, K = 13, 5, 3, 7, 4
NAMES = {"W1": "weight_ih", "U": "weight_hh", "b1": "bias"}


@pytest.fixture
def random():
    return np.random.default_rng(1)


@pytest.fixture
def net(random):
    net = article_rnn.ArticleRNN(D, H, K, seed=2)
    net.b1, net.b2 = random.normal(size=H) / 4, random.normal(size=K)  # zeros would hide a lost bias
    return net


@pytest.fixture
def twin(net):
    """RNNCell and a linear layer, with the same weights."""
    cell, out = recurra.RNNCell(D, H).double(), torch.nn.Linear(H, K).double()
    with torch.no_grad():
        for name, ours in NAMES.items():
            getattr(cell, ours).copy_(torch.from_numpy(getattr(net, name)))
        out.weight.copy_(torch.from_numpy(net.W2))
        out.bias.copy_(torch.from_numpy(net.b2))
    return cell, out


LOSSES = {
    "mean squared error": (article_rnn.mean_squared_error, mse_loss, lambda r: r.normal(size=(T, B, K))),
    "cross-entropy": (
        article_rnn.cross_entropy,
        lambda y, target: cross_entropy(y.flatten(0, 1), target.flatten()),
        lambda r: r.integers(K, size=(T, B)),
    ),
}


@pytest.mark.parametrize("started", [False, True], ids=["from zero", "from a state"])
@pytest.mark.parametrize("executor", ["reference", "staged", "torch"])
def test_forward_gives_the_same_numbers(net, twin, random, executor, started):
    cell, out = twin
    x, h = random.normal(size=(T, B, D)), random.normal(size=(B, H))
    y, last = net.forward(x, h if started else None)
    with recurra.options(executor=executor):
        got, state = recurra.scan(
            cell, torch.from_numpy(x), recurra.HiddenState(torch.from_numpy(h)) if started else None
        )
    assert_within_eps(out(got), torch.from_numpy(y))
    assert_within_eps(state.h, torch.from_numpy(last))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("executor", ["reference", "staged", "torch"])
def test_ten_steps_of_gradient_descent_give_the_same_numbers(net, twin, random, executor, loss):
    cell, out = twin
    in_numpy, in_torch, draw = LOSSES[loss]
    x, target = random.normal(size=(T, B, D)), draw(random)
    parameters = [*cell.parameters(), *out.parameters()]
    before = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for _ in range(10):
        y, _ = net.forward(x)
        value, dy = in_numpy(y, target)
        net.descend(net.backward(dy), rate=0.1)

        with recurra.options(executor=executor):
            got, _ = recurra.scan(cell, torch.from_numpy(x))
        ours = in_torch(out(got), torch.from_numpy(target))
        assert_within_eps(ours, torch.tensor(value))
        optimizer.zero_grad()
        ours.backward()
        optimizer.step()

    theirs = [getattr(net, name) for name in NAMES] + [net.W2, net.b2]
    mine = [getattr(cell, name) for name in NAMES.values()] + [out.weight, out.bias]
    for got, expected in zip(mine, theirs, strict=True):
        assert_within_eps(got, torch.from_numpy(expected))
    assert all((p - q).abs().max() > 1e-3 for p, q in zip(parameters, before, strict=True))


@pytest.mark.parametrize("loss", LOSSES)
def test_its_gradients_are_those_of_central_differences(net, random, loss):
    function, _, draw = LOSSES[loss]
    x, target = random.normal(size=(T, B, D)), draw(random)
    grads = net.backward(function(net.forward(x)[0], target)[1])
    for name, grad in grads.items():
        weight = getattr(net, name)
        direction, step = random.normal(size=weight.shape), 1e-6
        values = []
        for sign in (1, -1):
            setattr(net, name, weight + sign * step * direction)
            values.append(function(net.forward(x)[0], target)[0])
        setattr(net, name, weight)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx((grad * direction).sum(), rel=1e-6)


def test_it_learns_what_needs_a_memory(capsys):
    article_rnn.main()
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert losses[0] > 0.3
    assert losses[-1] < 0.1
