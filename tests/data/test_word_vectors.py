"""Word vectors from co-occurrence."""

import numpy as np
import pytest

from recurra.data import cooccurrence_vectors
from recurra.errors import OptionError


def texts_of_two_topics(count=200):
    rng = np.random.default_rng(0)
    topics = np.arange(2, 10), np.arange(10, 18)
    return [rng.choice(topics[k % 2], size=12).astype(np.int32) for k in range(count)]


def test_words_that_stand_together_are_alike():
    vectors = cooccurrence_vectors(texts_of_two_topics(), 20, 4)
    unit = vectors[2:18] / np.linalg.norm(vectors[2:18], axis=1, keepdims=True)
    alike = unit @ unit.T
    assert alike[:8, :8].min() > 0.5
    assert abs(alike[:8, 8:]).max() < 0.2


def test_words_that_were_not_seen_are_zero_and_the_others_have_a_mean_square_of_one():
    vectors = cooccurrence_vectors(texts_of_two_topics(), 20, 4)
    assert not vectors[[0, 1, 18, 19]].any()
    assert np.mean(vectors[2:18] ** 2) == pytest.approx(1)


def test_no_pair_spans_two_texts():
    # 2 and 3 end and begin texts that follow each other; within a text neither meets the other.
    texts = [np.array([4, 2]), np.array([3, 5])] * 5
    vectors = cooccurrence_vectors(texts, 6, 4, window=3)
    assert abs(vectors[2] @ vectors[5]) < 1e-9
    assert abs(vectors[3] @ vectors[4]) < 1e-9


def test_the_same_seed_gives_the_same_vectors():
    first, again, other = (cooccurrence_vectors(texts_of_two_topics(), 20, 4, seed=s) for s in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def test_dimensions_beyond_the_vocabulary_are_zero():
    vectors = cooccurrence_vectors([np.array([2, 3, 4, 2])], 5, 9)
    assert vectors.shape == (5, 9)
    assert not vectors[:, 4:].any()


def test_single_words_and_padding_alone_give_zeros():
    assert not cooccurrence_vectors([np.array([2]), np.array([3])], 4, 2).any()


@pytest.mark.parametrize(("width", "window"), [(0, 2), (2, 0)])
def test_sizes_must_be_positive(width, window):
    with pytest.raises(OptionError, match=rf"must be positive(.|\n)*width={width}, window={window}"):
        cooccurrence_vectors([np.array([2, 3])], 4, width, window=window)
