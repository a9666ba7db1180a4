"""Checkpoints: what goes in comes out, what cannot is refused, and damage is found."""

import json
import random
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import train

from recurra.errors import RunFolderError, UnsavableStateError
from recurra.train.checkpoint import SafeCheckpointIO, load, save
from recurra.train.randomness import random_states, restore_random_states, seeded
from recurra.train.tree import decode, encode


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert [*a] == [*b], "order is part of it"
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert repr(a) == repr(b)  # NaN is itself, 0.0 is not -0.0, True is not 1


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
KEYS = st.text() | st.integers() | st.booleans() | st.tuples(st.integers(), st.text())
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.dictionaries(KEYS, inner).map(OrderedDict)
    ),
    max_leaves=20,
)


@given(TREES)
@settings(max_examples=150, deadline=None)
def test_every_plain_tree_comes_back(tree):
    tensors = {}
    document = json.loads(json.dumps(encode(tree, tensors), allow_nan=False))
    assert_same(decode(document, tensors), tree)


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool],
)
def test_tensors_come_back_bit_for_bit(tmp_path, dtype):
    values = torch.randn(3, 1, 5).mul(3).to(dtype)
    state = {
        "tensor": values,
        "view": values.transpose(0, 2),
        "scalar": values[0, 0, 0],
        "empty": values[:0],
        "array": np.arange(4, dtype=np.uint32),
        "parameter": torch.ones(2),
        "keys": {0: values + values, "0": values},
        "nan": torch.tensor([float("nan"), float("inf")]),
    }
    save(state, tmp_path / "a.safetensors")
    assert_same(load(tmp_path / "a.safetensors"), state)


def test_tensors_that_share_memory_are_saved_each(tmp_path):
    whole = torch.arange(6.0)
    save({"a": whole, "b": whole[2:], "c": whole}, tmp_path / "a.safetensors")
    found = load(tmp_path / "a.safetensors")
    found["a"][:] = 0
    assert found["b"].tolist() == [2, 3, 4, 5]
    assert found["c"].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1, 2}, "builtins.set"),
        (b"bytes", "builtins.bytes"),
        (torch.float32, "torch.dtype"),
        (torch.Size([2]), "torch.Size"),
        (namedtuple("Pair", "a b")(1, 2), "Pair"),
        (np.float64(1.0), "numpy.float64"),
        (1j, "builtins.complex"),
        (lambda: None, "builtins.function"),
        (np.array(["a"]), "numpy.ndarray"),
        (torch.eye(2).to_sparse(), "torch.sparse"),
        (torch.zeros(2, dtype=torch.complex64), "torch.complex64"),
    ],
)
def test_what_cannot_be_saved_is_refused_with_its_place(tmp_path, value, said):
    with pytest.raises(UnsavableStateError, match=rf"callbacks\.mine\.1(.|\n)*{said}"):
        save({"callbacks": {"mine": [0, value]}}, tmp_path / "a.safetensors")
    assert [*tmp_path.iterdir()] == []


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save({"n": 1}, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recurra.train.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save({"n": 2}, path)
    assert load(path) == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, kept):
    path = tmp_path / "a.safetensors"
    save({"a": torch.randn(100), "b": list(range(100))}, path)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    with pytest.raises(RunFolderError, match=r"a\.safetensors is damaged or truncated\n(.|\n)*--overwrite"):
        load(path)


def test_sizes_in_a_header_are_held_against_the_file(tmp_path):
    header = {
        "__metadata__": {"recurra": json.dumps({"format": 1, "state": {"dict": [["a", {"tensor": "a"}]]}})},
        "a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    with pytest.raises(RunFolderError, match="damaged or truncated"):
        load(path)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "damaged or truncated"),
        (json.dumps({"format": 2, "state": {}}), "format 2: this version reads format 1"),
        (json.dumps({"format": 1}), "no checkpoint\n.*'state'"),
        (json.dumps({"format": 1, "state": {"dict": [["a", {"object": "os.system"}]]}}), "no known form"),
        (json.dumps({"format": 1, "state": {"tensor": "a"}}), "cannot be read"),
        (json.dumps({"format": 1, "state": {"dict": 3}}), "cannot be read"),
        (json.dumps({"format": 1, "state": {"dict": [[[1], 2]]}}), "cannot be read"),
        (json.dumps({"format": 1, "state": 3}), "it holds no state"),
        (json.dumps({"format": 1}).replace("1", "[" * 50_000 + "]" * 50_000), "damaged or truncated"),
    ],
)
def test_a_document_that_is_no_checkpoint_is_refused(tmp_path, document, said):
    import safetensors.torch

    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({}, path, {"recurra": document})
    with pytest.raises(RunFolderError, match=said):
        load(path)


def test_a_pickle_is_not_opened(tmp_path):
    path = tmp_path / "a.safetensors"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(RunFolderError, match="damaged or truncated"):
        load(path)


def test_all_that_lightning_saves_comes_back(tmp_path):
    train(tmp_path)
    path = tmp_path / "last.safetensors"
    state = load(path)
    assert {
        "state_dict",
        "optimizer_states",
        "lr_schedulers",
        "loops",
        "callbacks",
        "epoch",
        "global_step",
    } <= state.keys()
    assert {"torch", "cuda", "numpy", "python"} == next(iter(state["callbacks"].values()))["random"].keys()
    seen = []
    io = SafeCheckpointIO(seen.append, largest=2**20)
    io.save_checkpoint(state, tmp_path / "again.safetensors")
    assert_same(io.load_checkpoint(tmp_path / "again.safetensors"), state)
    assert len(seen) == 1
    io.remove_checkpoint(tmp_path / "again.safetensors")
    assert not (tmp_path / "again.safetensors").exists()
    with pytest.raises(TypeError, match="no storage options"):
        io.save_checkpoint(state, path, storage_options={})


def draws():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]


def test_random_states_come_back(tmp_path):
    with seeded(11):
        draws()
        save(random_states(), tmp_path / "a.safetensors")
        expected = draws()
        draws()
        restore_random_states(load(tmp_path / "a.safetensors"))
        assert draws() == expected


def test_seeding_leaves_the_callers_states_alone():
    before = random_states()
    with seeded(1):
        first = draws()
    assert_same(random_states(), before)
    with seeded(1):
        assert draws() == first
