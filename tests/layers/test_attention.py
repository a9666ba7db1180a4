"""Attention: weights over valid frames alone, each query by itself, gradients."""

import pytest
import torch

from recurra.errors import UnknownNameError
from recurra.layers import Attention
from recurra.layers.attention import KINDS

KIND = pytest.mark.parametrize("kind", KINDS)


@KIND
def test_weights_are_over_valid_frames_and_each_query_stands_alone(kind):
    torch.manual_seed(0)
    look = Attention(3, 5, kind).double()
    queries, memory, lengths = torch.randn(2, 4, 3).double(), torch.randn(2, 6, 5).double(), torch.tensor([6, 2])
    context, weights = look(queries, memory, lengths)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4).double())
    assert (weights[1, :, 2:] == 0).all()
    torch.testing.assert_close(context, torch.einsum("bts,bsm->btm", weights, memory))
    for t in range(4):
        torch.testing.assert_close(look(queries[:, t : t + 1], memory, lengths)[0][:, 0], context[:, t])
    short, _ = look(queries[1:], memory[1:, :2], torch.tensor([2]))
    torch.testing.assert_close(short[0], context[1])


@KIND
def test_its_gradient(kind):
    torch.manual_seed(0)
    look = Attention(3, 4, kind).double()
    queries, memory = (torch.randn(2, n, w, dtype=torch.float64, requires_grad=True) for n, w in ((3, 3), (5, 4)))
    assert torch.autograd.gradcheck(lambda q, m: look(q, m, torch.tensor([5, 2])), (queries, memory))


def test_an_unknown_kind():
    with pytest.raises(UnknownNameError, match=r"no attention of that name(.|\n)*additive, multiplicative"):
        Attention(3, 4, "dotted")
