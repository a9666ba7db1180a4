"""Batches and splits: every row once, alike in length, and the same again from the same seed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from recurra.data import LengthBucketSampler, collate, stratified_split
from recurra.errors import DataError, EmptyDataError, OptionError

some_lengths = st.lists(st.integers(1, 50), min_size=1, max_size=300)


@given(some_lengths, st.integers(1, 40), st.integers(0, 2**40), st.integers(0, 99), st.booleans())
def test_every_row_comes_once(lengths: list[int], batch_size: int, seed: int, epoch: int, shuffle: bool) -> None:
    sampler = LengthBucketSampler(lengths, batch_size, seed=seed, shuffle=shuffle)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) == len(sampler)
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)


@given(some_lengths, st.integers(0, 9), st.integers(0, 9))
def test_an_epoch_follows_from_the_seed_and_its_number(lengths: list[int], seed: int, epoch: int) -> None:
    one, other = (LengthBucketSampler(lengths, 4, seed=s, shuffle=True) for s in (seed, seed + 1))
    one.set_epoch(epoch)
    list(one)  # a pass changes nothing
    other.load_state_dict(one.state_dict())
    assert list(one) == list(other)


def test_epochs_and_seeds_differ() -> None:
    lengths = [1 + i % 7 for i in range(200)]
    sampler = LengthBucketSampler(lengths, 8, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(LengthBucketSampler(lengths, 8, seed=4)) != first


def test_little_is_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 400, 20_000)

    def padded(batches: list[list[int]]) -> float:
        return 1 - lengths.sum() / sum(len(batch) * lengths[batch].max() for batch in batches)

    plain = [list(range(i, i + 50)) for i in range(0, 20_000, 50)]
    assert padded(plain) > 0.45
    assert padded(list(LengthBucketSampler(lengths, 50, seed=0))) < 0.03
    assert padded(list(LengthBucketSampler(lengths, 50, seed=0, shuffle=False))) < 0.003


def test_unshuffled_begins_with_the_longest() -> None:
    lengths = [3, 8, 5, 8, 1]
    assert list(LengthBucketSampler(lengths, 2, seed=0, shuffle=False)) == [[1, 3], [2, 0], [4]]


def test_it_drives_a_loader() -> None:
    rows = [np.arange(1, n + 1) for n in (4, 2, 3)]
    sampler = LengthBucketSampler([4, 2, 3], 2, seed=0, shuffle=False)
    loader = DataLoader(rows, batch_sampler=sampler, collate_fn=lambda found: collate(found, [0] * len(found)))
    assert [batch.lengths.tolist() for batch in loader] == [[4, 3], [2]]


@given(st.lists(st.lists(st.integers(1, 9), min_size=0, max_size=9), min_size=1, max_size=9))
def test_padding_is_zero_and_rows_are_whole(rows: list[list[int]]) -> None:
    batch = collate([np.array(row, dtype=np.int32) for row in rows], np.arange(len(rows)))
    assert {tensor.dtype for tensor in batch} == {torch.int64}
    assert batch.tokens.shape == (len(rows), max(map(len, rows)))
    for i, row in enumerate(rows):
        assert batch.tokens[i].tolist() == row + [0] * (batch.tokens.shape[1] - len(row))
    assert batch.lengths.tolist() == [len(row) for row in rows]
    assert batch.labels.tolist() == list(range(len(rows)))


@given(
    st.lists(st.sampled_from("abcd"), min_size=2, max_size=200).filter(lambda found: len(found) > len(set(found))),
    st.floats(0.01, 0.99),
    st.integers(0, 2**60),
)
def test_each_class_is_in_both_parts(labels: list[str], fraction: float, seed: int) -> None:
    train, held_out = stratified_split(labels, fraction, seed)
    assert sorted([*train, *held_out]) == list(range(len(labels)))
    for part in (train, held_out):
        assert (np.diff(part) > 0).all()
    for name in {*labels}:
        rows = labels.count(name)
        out = sum(labels[i] == name for i in held_out)
        assert out == (min(max(round(fraction * rows), 1), rows - 1))
    again = stratified_split(labels, fraction, seed)
    assert (again[0] == train).all()
    assert (again[1] == held_out).all()


def test_another_seed_is_another_split() -> None:
    labels = [0, 1] * 100
    assert (stratified_split(labels, 0.5, 0)[1] != stratified_split(labels, 0.5, 1)[1]).any()


def test_what_cannot_be_batched_or_split() -> None:
    with pytest.raises(EmptyDataError, match="no rows to make batches of"):
        LengthBucketSampler([], 4, seed=0)
    with pytest.raises(OptionError, match="batch_size must be positive"):
        LengthBucketSampler([1], 0, seed=0)
    with pytest.raises(OptionError, match="seed must be at least 0"):
        LengthBucketSampler([1], 1, seed=-1)
    with pytest.raises(EmptyDataError, match="at least one row"):
        collate([], [])
    with pytest.raises(DataError, match="2 labels, 1 rows"):
        collate([np.array([1])], [0, 1])
    for fraction in (0.0, 1.0, -0.5):
        with pytest.raises(OptionError, match="between 0 and 1"):
            stratified_split([0, 0], fraction, 0)
    with pytest.raises(OptionError, match="seed must be at least 0"):
        stratified_split([0, 0], 0.5, -1)
    for labels in ([], ["a", "b"]):
        with pytest.raises(DataError, match="too few rows"):
            stratified_split(labels, 0.5, 0)
