"""Two processes of torchrun give the losses and weights of one, but for rounding, and resume like it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import together
import torch

from recurra.errors import RunFolderError, UnknownNameError
from recurra.tasks import LanguageModel, TextClassifier
from recurra.train.checkpoint import load
from recurra.train.untrusted import read_json

EPS = torch.finfo(torch.float32).eps
# Sums of float32 are taken in another order, and Adam divides small numbers by small ones; measured: 1 and 4 eps.
LOSSES, WEIGHTS = 8 * EPS, 64 * EPS
HERE = Path(__file__).parent


def torchrun(*command, cwd, processes=2):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(HERE), str(HERE.parent / "tasks")])}
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *command],
        cwd=cwd,
        env=env | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "TERM": "dumb"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of what :func:`together.main` leaves, made by two processes."""
    folder = tmp_path_factory.mktemp("two")
    done = torchrun(str(HERE / "together.py"), str(folder), cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    together.train(folder / "still", together.STILL)
    together.language(folder / "language")
    return folder


def figures(run):
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in read_json(run / "metrics.json")["history"]]


def assert_equal_but_for_rounding(a, b, kind=TextClassifier):
    for ours, theirs in zip(figures(a), figures(b), strict=True):
        assert ours == pytest.approx(theirs, rel=LOSSES, abs=0)
    weights = [kind.load(run, cells=[together.began]).network_.state_dict() for run in (a, b)]
    for name in weights[0]:
        error = (weights[0][name].double() - weights[1][name]).norm() / weights[1][name].double().norm()
        assert error <= WEIGHTS, f"{name} is off by {error / EPS:.0f} eps"


def test_two_processes_give_the_losses_and_weights_of_one(one, two):
    assert_equal_but_for_rounding(two / "still", one / "still")


def test_two_processes_carry_the_states_of_a_language_models_streams(one, two):
    assert_equal_but_for_rounding(two / "language", one / "language", LanguageModel)


def test_one_process_resumes_what_two_began(one, two, tmp_path):
    run = shutil.copytree(two / "still-cut", tmp_path / "run")
    assert len(load(run / "checkpoints/last.safetensors")["callbacks"]["KeepEpochs"]["others"]) == 1
    together.train(run, together.STILL, resume=True)
    assert_equal_but_for_rounding(run, one / "still")


def test_two_processes_resume_bit_for_bit(two):
    assert figures(two / "random") == figures(two / "random-cut")
    assert (two / "random/model.safetensors").read_bytes() == (two / "random-cut/model.safetensors").read_bytes()


def test_each_process_draws_its_own_random_numbers(two):
    state = load(two / "random/checkpoints/last.safetensors")["callbacks"]["KeepEpochs"]
    (other,) = state["others"]
    assert not torch.equal(state["random"]["torch"], other["torch"])
    assert state["random"]["python"] != other["python"]


def test_data_that_differ_from_process_to_process_are_refused(two):
    assert not (two / "different").exists()  # that each of them raised, together.py asserts


def test_the_command_line_trains_in_two_processes_and_reports_in_one(two):
    lines = (two / "stdout").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["data", "run", "best", "test", "report", "next"]
    metrics = read_json(two / "runs/reviews-lstm/metrics.json")
    assert f"{metrics['test']['accuracy']:.4f} on 33 texts" in lines[3]
    assert [p.name for p in (two / "runs").iterdir()] == ["reviews-lstm"]


def test_only_the_first_process_prints_and_writes(two):
    lines = re.findall(r"^epoch \d/3", (two / "stderr").read_text(), re.M)
    assert lines == ["epoch 1/3", "epoch 2/3", "epoch 3/3", "epoch 1/3", "epoch 2/3"] * 2 + ["epoch 3/3"]
    assert [p.name for p in (two / "random").rglob(".*")] == []


def test_an_error_passes_from_process_to_process_as_it_was_raised():
    import pickle

    for error in (UnknownNameError("cell", "lstn", ["lstm"]), RunFolderError("no run", received="a", instead="b")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))
