"""Drawing the next token: temperature, the likeliest k, and the nucleus."""

import pytest
import torch

from recurra.errors import OptionError
from recurra.tasks.sampling import drawn, require_sampling, tempered

SCORES = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()[[2, 0, 3, 1]]  # probabilities 0.15, 0.5, 0.1, 0.25


def counts(times=4000, **told):
    generator = torch.Generator().manual_seed(0)
    told = {"temperature": 1.0, "top_k": None, "top_p": None} | told
    found = torch.tensor([drawn(SCORES, generator=generator, **told) for _ in range(times)])
    return torch.bincount(found, minlength=4).double() / times


def assert_near(got, expected, times=4000):
    expected = torch.tensor(expected, dtype=torch.float64)
    deviation = (expected * (1 - expected) / times).sqrt()
    assert bool(((got - expected).abs() <= 4.5 * deviation).all()), got


def test_tokens_come_as_often_as_they_are_likely():
    assert_near(counts(), [0.15, 0.5, 0.1, 0.25])


def test_temperature_sharpens_and_flattens():
    p = torch.tensor([0.15, 0.5, 0.1, 0.25]) ** 2
    assert_near(counts(temperature=0.5), (p / p.sum()).tolist())
    assert_near(counts(temperature=1000.0), [0.25] * 4)
    assert counts(10, temperature=0)[1] == 1


def test_the_likeliest_k():
    assert_near(counts(top_k=2), [0, 2 / 3, 0, 1 / 3])
    assert counts(10, top_k=1)[1] == 1
    assert_near(counts(top_k=99), [0.15, 0.5, 0.1, 0.25])


def test_the_nucleus_is_the_fewest_that_reach_its_part():
    assert_near(counts(top_p=0.7), [0, 2 / 3, 0, 1 / 3])
    assert counts(10, top_p=0.45)[1] == 1
    assert counts(10, top_p=1e-9)[1] == 1
    assert_near(counts(top_p=1.0), [0.15, 0.5, 0.1, 0.25])


def test_what_is_impossible_is_never_drawn():
    scores = SCORES.clone()
    scores[1] = -torch.inf
    generator = torch.Generator().manual_seed(0)
    found = {drawn(scores, temperature=50.0, top_k=None, top_p=1.0, generator=generator) for _ in range(200)}
    assert found == {0, 2, 3}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ((-1.0, None, None), "temperature must be a number at least 0"),
        ((float("nan"), None, None), "temperature must be a number"),
        ((1.0, 0, None), "top_k must be an integer of at least 1"),
        ((1.0, None, 0.0), "top_p must be a number above 0"),
        ((1.0, None, 1.5), "top_p must be a number above 0 and at most 1"),
    ],
)
def test_values_out_of_range(told, said):
    with pytest.raises(OptionError, match=said):
        require_sampling(*told)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1e-4, 1e-38, 1e-310, 5e-324])
def test_towards_0_the_likeliest_is_drawn(temperature, dtype):
    scores = torch.stack([SCORES, 40 * SCORES - 900]).to(dtype)
    assert torch.equal(tempered(scores, temperature).argmax(1), scores.argmax(1))
    assert torch.allclose(tempered(scores, 0.7), (scores / 0.7).softmax(1))
    told = {"temperature": temperature, "top_k": None, "top_p": 0.9, "generator": torch.Generator()}
    assert drawn(scores[1], **told) == 1
