"""Each cell learns a small real task, by the example that shows how."""

import gzip

import digits
import memory
import numpy as np
import pytest
from matplotlib.axes import Axes

from recurra.cells import CELLS, LSTMCell, zoneout


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_learns_to_read_digits(name):
    assert digits.learn(name) > 0.75  # chance is 0.1


def test_a_wrapped_cell_does_too():
    assert digits.learn(lambda D, H: zoneout(LSTMCell(D, H), 0.05)) > 0.75


@pytest.mark.parametrize(
    ("named", "cell", "layers", "T"),
    [
        ("order", "lstm", 1, 20),
        ("adding", "lstm", 1, 20),
        ("adding", "rg_lru", 1, 60),
        ("adding", "ind_rnn", 2, 20),  # one layer cannot choose what the next one adds up
        ("copy", "lru", 1, 60),
    ],
)
def test_what_happened_some_frames_ago_is_learnt(named, cell, layers, T):
    settings = {"hidden_size": 64, "layers": layers, "lr": 0.01, "steps": 1500, "say": lambda line: None}
    final, _ = memory.learn(memory.TASKS[named](T), cell, **settings)
    assert final < 5 * memory.TASKS[named].solved  # five times what ends the training; guessing is 10 times and more


def test_memory_is_drawn_against_time(tmp_path, capsys):
    memory.lags("order", ["rnn", "lstm"], [10, 20], tmp_path / "lags.svg", steps=5, hidden_size=8)
    assert "<svg" in (tmp_path / "lags.svg").read_text("utf-8")
    assert capsys.readouterr().out.count("after 5 steps") == 4


def test_short_tasks_and_no_steps(capsys):
    for task in memory.TASKS.values():
        for T in range(1, 25):
            x, _ = task(T).batch(50)
            assert x.isfinite().all()
    x, _ = memory.Adding(3).batch(50)
    assert (x[..., 1].sum(1) == 2).all()
    assert memory.main(["adding", "--T", "10", "--steps", "0", "--hidden-size", "4"]) > 0
    assert "after 0 steps" in capsys.readouterr().out
    for wrong in (["--T", "2"], ["--steps", "-1"], ["--layers", "0"]):
        with pytest.raises(SystemExit):
            memory.main(["order", *wrong])
        assert "must be at least" in capsys.readouterr().err


def test_no_error_is_drawn_too(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(Axes, "plot", lambda axes, x, y, **_: lines.append(list(y)))
    memory.drawn("order", {"lstm": [0.0, 0.2]}, [10, 20], tmp_path / "lags.svg", "5 steps")
    assert lines == [[0.0005, 0.2]]


def test_images_are_read_pixel_by_pixel(tmp_path, capsys):
    for part, count in (("train", 60), ("t10k", 20)):
        pixels, labels = np.random.default_rng(0).integers(0, 255, (count, 784)), np.arange(count) % 10
        for name, head, values in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
            packed = gzip.compress(bytes(head) + values.astype(np.uint8).tobytes())
            (tmp_path / f"{part}-{name}-ubyte.gz").write_bytes(packed)
    arguments = ["mnist", "--data-dir", str(tmp_path), "--permuted", "--epochs", "1", "--hidden-size", "8"]
    assert 0 <= memory.main(arguments) <= 1
    assert "of unseen images" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        memory.main(["mnist", "--data-dir", str(tmp_path / "nowhere")])
    assert "mnist reads its four .gz files from --data-dir" in capsys.readouterr().err
