"""recurra diagnose: of a cell, of a run, and with bad input."""

import csv
import json

import pytest


def test_a_cell_as_it_begins(run, tmp_path):
    done = run("diagnose", "--cell", "rnn", "-H", "16", "-T", "40", "--out", "d.html", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.startswith("RNNCell: ")
    assert done.out.endswith("written to d.html\n")
    assert "<svg" in (tmp_path / "d.html").read_text("utf-8")
    (layer,) = json.loads(run("diagnose", "--cell", "lstm", "-T", "40", "--chrono", "--json", cwd=tmp_path).out)[
        "layers"
    ]
    assert layer["flow"]["verdict"] == "healthy"


def test_a_run_on_its_data(run, tmp_path):
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        rows = [["a fine warm film and a witty plot", "good"], ["a dull cold film of grim actors", "bad"]] * 40
        csv.writer(file).writerows([["review", "sentiment"], *rows])
    small = "--hidden-size 8 --embedding-size 8 --epochs 1 --out run".split()
    done = run("train", "classify", "reviews.csv", *small, cwd=tmp_path)
    assert done.code == 0, done.err
    done = run("diagnose", "run", "reviews.csv", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    names = [layer["flow"]["name"] for layer in json.loads(done.out)["layers"]]
    assert names == ["recurrent layer 1, forward", "recurrent layer 1, backward"]


def test_a_language_model_on_its_text(run, tmp_path):
    (tmp_path / "book.txt").write_text("to be or not to be, that is the question\n" * 60)
    small = "--unit char --hidden-size 8 --embedding-size 8 --epochs 1 --out run".split()
    done = run("train", "language", "book.txt", *small, cwd=tmp_path)
    assert done.code == 0, done.err
    done = run("diagnose", "run", "--json", "--out", "d.html", cwd=tmp_path)
    assert done.code == 0, done.err
    (layer,) = json.loads(done.out)["layers"]
    assert layer["flow"]["name"] == "recurrent layer 1"
    assert layer["flow"]["lags"][-1] > 50


CELLS = """
import torch, recurra
from torch.nn.functional import linear
print("read")
class Grow(recurra.RNNCell):
    def step(self, x, state):
        h = 3 * state.h + linear(x, self.weight_ih)
        return h, recurra.HiddenState(h)
class More(recurra.RNNCell):
    def __init__(self, D, H, P):
        super().__init__(D, H)
class Raises(recurra.RNNCell):
    def step(self, x, state):
        raise RuntimeError("boom")
"""


def no_constant(word):
    raise AssertionError(f"{word} is no JSON")


@pytest.mark.filterwarnings("ignore:Raises runs in the plain loop")
def test_a_cell_of_a_file_that_explodes_prints_or_raises(run, tmp_path):
    (tmp_path / "mine.py").write_text(CELLS)
    done = run("diagnose", "--cell", "mine.py:Grow", "-D", 3, "-H", 4, "--json", cwd=tmp_path)
    assert (done.code, done.err) == (0, "read\n")
    (layer,) = json.loads(done.out, parse_constant=no_constant)["layers"]
    assert (layer["flow"]["verdict"], layer["flow"]["reach"]) == ("exploding", None)
    for command in (["explain"], ["diagnose", "--cell"]):
        done = run(*command, "mine.py:More", cwd=tmp_path)
        assert done.code == 2
        assert "mine.py cannot be run\n  received: TypeError: " in done.err
        assert "instead:  a class that is made as Class(input_size, hidden_size)" in done.err
    done = run("diagnose", "--cell", "mine.py:Raises", cwd=tmp_path)
    assert done.code == 2
    assert "mine.py:14 cannot be run\n  received: RuntimeError: boom" in done.err


def test_bad_input_is_said_without_a_traceback(run, tmp_path):
    for arguments, said in (
        ([], "looks at a run folder, or at a cell"),
        (["--cell", "lsmt"], "lstm"),
        (["--cell", "lstm", "--out", "d.txt"], "written as .html or .json"),
        (["--cell", "lstm", "--out", "nowhere/d.html"], "a folder that is there\n  received: nowhere"),
        (["--cell", "lstm", "--text", "x"], "--text is no option for a cell"),
        (["--cell", "lstm", "--data-dir", "x"], "--data-dir is no option for a cell"),
        (["nowhere", "--chrono"], "--chrono is no option for a run"),
        (["nowhere", "-H", "3"], "--hidden-size is no option for a run"),
        (["nowhere"], "nowhere"),
    ):
        done = run("diagnose", *arguments, cwd=tmp_path)
        assert done.code == 2
        assert said in done.err
        assert "Traceback" not in done.err
