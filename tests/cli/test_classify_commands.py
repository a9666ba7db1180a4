"""train classify, evaluate and predict on a small table, from the first command to the last, and with bad input."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import tracemalloc

import pytest
import torch

from recurra.cli.inputs import run_folder_for
from recurra.kernels.cpu import native
from recurra.train.checkpoint import load

SMALL = "--hidden-size 8 --embedding-size 8 --max-tokens 20 --batch-size 16 --validation-fraction 0.2".split()
FAST = [*SMALL, "--epochs", "3", "--learning-rate", "0.01"]


def write_reviews(path, count, seed=0):
    rng = random.Random(seed)
    words = {"good": "fine lovely warm witty bright".split(), "bad": "dull flat cold tired grim".split()}
    neutral = "the a film plot actor scene and it was of".split()
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "review", "sentiment"])
        for i in range(count):
            label = rng.choice(["good", "bad"])
            length = rng.randint(4, 25)
            text = " ".join(rng.choice(words[label] if rng.random() < 0.3 else neutral) for _ in range(length))
            out.writerow([i, text, label])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with tables, and with what train classify printed once :func:`place` has run it there."""
    folder = tmp_path_factory.mktemp("work")
    write_reviews(folder / "reviews.csv", 200)
    write_reviews(folder / "test.csv", 60, seed=1)
    return folder


@pytest.fixture
def place(made, run):
    """The folder, with a run of train classify in runs/reviews."""
    if not (made / "runs").exists():
        done = run("train", "classify", "reviews.csv", "--test", "test.csv", *FAST, "--out", "runs/reviews", cwd=made)
        (made / "train.out").write_text(done.out)
        (made / "train.err").write_text(done.err)
        assert done.code == 0, done.err
    return made


def test_training_says_where_things_are_and_how_well_it_went(run, place):
    out, err = (place / "train.out").read_text(), (place / "train.err").read_text()
    assert "data     reviews.csv: 200 texts, 60 for testing\n" in out
    assert "run      runs/reviews\n" in out
    assert re.search(r"best     epoch \d of 3: valid accuracy 0\.\d{4}, valid loss \d\.\d{4}\n", out)
    accuracy = re.search(r"test     accuracy (\d\.\d{4}) on 60 texts\n", out)
    assert accuracy
    assert "report   runs/reviews/report.html\n" in out
    assert (place / "runs/reviews/report.html").is_file()
    metrics = json.loads((place / "runs/reviews/metrics.json").read_text())
    assert f"{metrics['test']['accuracy']:.4f}" == accuracy[1]
    lines = err.strip().splitlines()
    assert [re.match(r"epoch \d/3  loss \d\.\d+  accuracy \d\.\d+  valid loss", line) is None for line in lines] == [
        False
    ] * 3


def test_evaluating_gives_the_same_figures(run, place):
    done = run("evaluate", "runs/reviews", "test.csv", "--json", cwd=place)
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    metrics = json.loads((place / "runs/reviews/metrics.json").read_text())
    assert {k: figures[k] for k in metrics["test"]} == metrics["test"]
    assert (figures["run"], figures["data"], figures["part"]) == ("runs/reviews", "test.csv", "all")
    shown = run("evaluate", "runs/reviews", "test.csv", cwd=place).out
    assert f"accuracy   {figures['accuracy']:.4f}" in shown
    assert all(word in shown for word in ("macro f1", "log loss", "precision", "true, down; predicted, across"))


def test_a_run_knows_its_data_from_any_folder(run, made, tmp_path):
    (tmp_path / "odd.csv").write_text("comment,kind\n" + "fine,$x_$\ndull,b\n" * 20)
    (tmp_path / "test.csv").write_text("comment,kind\nfine,$x_$\ndull,b\n")
    columns = ["--text", "comment", "--label", "kind"]
    done = run("train", "classify", "odd.csv", *FAST, *columns, "--test", "test.csv", "--out", "odd", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "2 classes, learnt from 32 texts" in (tmp_path / "odd/report.html").read_text()
    assert "test.csv: 2 texts\n" in run("evaluate", tmp_path / "odd", cwd=made).out
    done = run("train", "classify", "odd.csv", *FAST, *columns, "--out", "untested", cwd=tmp_path)
    assert "odd.csv: 40 texts, the data of the training\n" in run("evaluate", tmp_path / "untested", cwd=made).out
    with (tmp_path / "odd.csv").open("a") as file:
        file.write("finer,b\n")
    changed = run("evaluate", tmp_path / "untested", cwd=made)
    assert (changed.code, changed.out) == (2, "")
    assert "what is found is not the data that the run was trained on" in changed.err
    assert "odd.csv: 41 texts\n" in run("evaluate", tmp_path / "untested", tmp_path / "odd.csv", *columns, cwd=made).out
    (tmp_path / "test.csv").write_text("comment,kind\nfine,new\n")
    done = run("train", "classify", "odd.csv", *FAST, *columns, "--test", "test.csv", "--out", "no", cwd=tmp_path)
    assert done.code == 2
    assert "the test part holds classes that the training data does not" in done.err
    assert not (tmp_path / "no").exists()


def test_predicting_a_text_a_file_a_table_and_stdin(run, place):
    text = "a lovely witty film and a warm scene"
    (found,) = json.loads(run("predict", "runs/reviews", text, "--json", cwd=place).out)
    assert found["label"] in ("good", "bad")
    assert found["confidence"] == max(found["probabilities"].values())
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    (place / "lines.txt").write_text(f"{text}\nthe dull plot\n")
    from_file = json.loads(run("predict", "runs/reviews", "lines.txt", "--json", cwd=place).out)
    assert from_file[0]["label"] == found["label"]
    assert from_file[0]["probabilities"] == pytest.approx(found["probabilities"], abs=2e-6)
    from_stdin = json.loads(
        run("predict", "runs/reviews", "-", "--json", cwd=place, given=f"{text}\nthe dull plot".encode()).out
    )
    assert from_stdin == from_file
    assert len(json.loads(run("predict", "runs/reviews", "test.csv", "--json", cwd=place).out)) == 60
    assert (
        len(json.loads(run("predict", "runs/reviews", "test.csv", "--text", "sentiment", "--json", cwd=place).out))
        == 60
    )
    assert "there is no text" in run("predict", "runs/reviews", " ", cwd=place).err
    assert (
        "--seed is no option for a run of task classify"
        in run("predict", "runs/reviews", text, "--seed", 1, cwd=place).err
    )
    shown = run("predict", "runs/reviews", text, cwd=place).out
    assert re.fullmatch(rf"{found['label']} +\d+\.\d%  {text}\n", shown)


def test_answers_are_written_as_they_come_and_read_as_one_list(run, place, monkeypatch):
    command = ("predict", "runs/reviews", "test.csv")
    whole, listed = (run(*command, *form, cwd=place).out for form in ((), ("--json",)))
    monkeypatch.setattr("recurra.cli.classify.AT_ONCE", 7)
    assert run(*command, cwd=place).out == whole
    pieces = run(*command, "--json", cwd=place).out
    assert pieces == json.dumps(json.loads(pieces), indent=1) + "\n"
    for one, other in zip(json.loads(listed), json.loads(pieces), strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=2e-6)


def test_memory_does_not_hold_what_is_classified(run, place, monkeypatch):
    line = "the plot of a film " * 50 + "\n"
    (place / "long.txt").write_text(line * 4000)
    run("predict", "runs/reviews", "a film", cwd=place)
    monkeypatch.setattr("recurra.cli.classify.AT_ONCE", 256)
    tracemalloc.start()
    done = run("predict", "runs/reviews", "long.txt", cwd=place)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert done.out.count("\n") == 4000
    assert peak < len(line) * 4000 / 2, f"{peak:,}"


@pytest.mark.skipif(native() is None, reason="built without the native machine")
def test_matrices_in_fewer_bits_change_little(run, place):
    figures = {}
    for weights in ("float", "bfloat16", "int8"):
        shown = run("evaluate", "runs/reviews", "test.csv", "--weights", weights, "--json", cwd=place)
        figures[weights] = json.loads(shown.out)["log_loss"]
    assert len(set(figures.values())) == 3
    assert max(figures.values()) - min(figures.values()) < 0.01
    done = run("predict", "runs/reviews", "a warm film", "--weights", "int4", cwd=place)
    assert done.code == 2
    assert "weights must be one of float, bfloat16, int8" in done.err


def test_json_of_training_is_one_object(run, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count in {"train": 120, "dev": 30, "test": 30}.items():
        write_reviews(folder / f"{name}.csv", count)
    done = run("train", "classify", "data", *FAST, "--cell", "gru", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["run"] == "runs/data-gru"
    assert found["test"]["count"] == 30
    assert {"best_epoch", "epochs", "valid_accuracy", "valid_loss"} <= found.keys()


def test_a_finished_run_is_kept_unless_told_otherwise(run, place):
    done = run("train", "classify", "reviews.csv", *FAST, "--out", "runs/reviews", cwd=place)
    assert done.code == 2
    assert "the folder already holds a finished run" in done.err
    done = run("train", "classify", "reviews.csv", *FAST, "--out", "runs/reviews", "--resume", cwd=place)
    assert done.code == 0, done.err
    assert "epoch" not in done.err, "nothing was left to train"


def test_the_default_folder_is_free(tmp_path):
    assert run_folder_for("a/reviews.csv.gz", "lstm", resume=False, root=tmp_path).name == "reviews-lstm"
    assert run_folder_for("reviews.csv", "lstm", resume=True, root=tmp_path).name == "reviews-lstm"
    (tmp_path / "reviews-lstm").mkdir()
    assert run_folder_for("reviews.csv", "lstm", resume=False, root=tmp_path).name == "reviews-lstm-2"
    (tmp_path / "reviews-lstm-2").mkdir()
    assert run_folder_for("reviews.csv", "lstm", resume=False, root=tmp_path).name == "reviews-lstm-3"
    assert run_folder_for("reviews.csv", "lstm", resume=True, root=tmp_path).name == "reviews-lstm-2"


def test_ctrl_c_says_how_to_resume_and_that_command_gives_the_weights_of_an_unbroken_run(run, tmp_path):
    write_reviews(tmp_path / "reviews.csv", 200)
    chosen = ["train", "classify", "reviews.csv", *SMALL, "--epochs", "8", "--patience", "100", "--seed", "5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "recurra", *chosen, "--out", "cut"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},  # sums depend on it, in the last bit
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    with process.stderr as lines:
        said = [next(lines).decode() for _ in range(3)]
        assert said[-1].startswith("epoch 3/8"), said
        time.sleep(random.random() * 0.1)  # whatever it is at: in an epoch, in validation, or writing
        process.send_signal(signal.SIGINT)
        rest = lines.read().decode()
    assert process.wait(60) == 130
    assert "Traceback" not in rest
    assert re.search(r"training was stopped in epoch \d: the end of epoch \d is saved\n", rest)
    again = re.search(r"resume with:  recurra (.*)\n", rest)
    assert again
    assert again[1] == " ".join([*chosen, "--out", "cut", "--resume"])
    assert_refused(run("predict", "cut", "a film", cwd=tmp_path), "the run has no weights(.|\n)*--resume")
    done = run(*again[1].split(), cwd=tmp_path)
    assert done.code == 0, done.err
    assert "epoch 3/8" not in done.err, "epochs that had ended are not trained again"
    assert run(*chosen, "--out", "whole", cwd=tmp_path).code == 0
    a, b = (load(tmp_path / name / "checkpoints" / "last.safetensors") for name in ("whole", "cut"))
    assert a["global_step"] == b["global_step"]
    for name in a["state_dict"]:
        assert torch.equal(a["state_dict"][name], b["state_dict"][name]), name
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def assert_refused(done, *said):
    assert done.code == 2, done.err
    for part in said:
        assert re.search(part, done.err), done.err


def test_tables_that_cannot_be_learnt_from(run, tmp_path):
    def refused(name, content, *said, options=()):
        (tmp_path / name).write_bytes(content)
        assert_refused(run("train", "classify", name, *FAST, *options, cwd=tmp_path), *said)

    refused("a.csv", b"review,sentimant\nfine,good\n", "error: .*", "review", "sentimant")
    refused("b.csv", b"review,label\nfine,good\n", "revew", "'review'", options=["--text", "revew"])
    refused("c.csv", b"", r"c\.csv")
    refused("d.csv", b"text,label\n", r"d\.csv has no rows")
    refused("e.csv", b"text,label\n" + b"fine,good\n" * 9, "at least two classes\n.*only good, 9 times")
    refused("f.csv", b"text,label\nfine,good\n\xff\xfe,bad\n", r"f\.csv", "line 3")
    refused("g.csv", b"text,label\nfine,good\n  ,bad\n", r"g\.csv", "3")
    refused("h.csv", b"text,label\nfine,good\ndull,bad\n", "'lstn'\n.*'lstm'?", options=["--cell", "lstn"])
    assert not (tmp_path / "runs").exists()


def test_texts_that_cannot_be_classified(run, place):
    def refused(content, *said):
        (place / "texts.txt").write_bytes(content)
        assert_refused(run("predict", "runs/reviews", "texts.txt", cwd=place), *said)

    refused(b"", r"texts\.txt is empty")
    refused(b"a film\n\nanother\n", r"texts\.txt, line 2: there is no text")
    refused(b"a film\n\xe9t\xe9\n", r"texts\.txt, line 2: not valid UTF-8\n.*byte 0xe9 at column 1")
    assert_refused(run("predict", "runs/reviews", "-", cwd=place, given=b""), "standard input is empty")


def test_labels_that_the_run_does_not_know(run, place):
    (place / "others.csv").write_text("text,label\na film,awful\n")
    done = run("evaluate", "runs/reviews", "others.csv", cwd=place)
    assert_refused(done, "classes that the training data does not\n.*awful\n.*bad, good")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_run_folder(run, place, tmp_path, name):
    import shutil

    broken = shutil.copytree(place / "runs/reviews", tmp_path / "run")
    content = (broken / name).read_bytes()
    (broken / name).write_bytes(content[: len(content) // 2])
    assert_refused(run("predict", broken, "a film", cwd=tmp_path), rf"{name} is damaged or truncated", "--overwrite")


def test_a_damaged_checkpoint_is_not_resumed_from(run, tmp_path):
    write_reviews(tmp_path / "reviews.csv", 60)
    assert run("train", "classify", "reviews.csv", *FAST, "--out", "run", cwd=tmp_path).code == 0
    last = tmp_path / "run/checkpoints/last.safetensors"
    last.write_bytes(last.read_bytes()[:-10])
    (tmp_path / "run/model.safetensors").unlink()
    config = json.loads((tmp_path / "run/config.json").read_text())
    del config["files"]["model.safetensors"]
    (tmp_path / "run/config.json").write_text(json.dumps({**config, "state": "training"}))
    done = run("train", "classify", "reviews.csv", *FAST, "--out", "run", "--resume", cwd=tmp_path)
    assert_refused(done, r"last\.safetensors is damaged or truncated\n(.|\n)*--overwrite")


def test_a_growing_file_and_stdin_are_answered_as_they_come(run, place):
    given = b"a lovely film\n\nthe dull plot\na cold scene"
    done = run("predict", "runs/reviews", "-", "--follow", "--json", cwd=place, given=given)
    assert done.code == 0, done.err
    assert len([json.loads(line) for line in done.out.splitlines()]) == 3
    growing = place / "growing.log"
    growing.write_bytes(b"a lovely film\n")
    command = [sys.executable, "-m", "recurra", "predict", "runs/reviews", "growing.log", "--follow"]
    with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().endswith("a lovely film\n")
            with growing.open("ab") as file:
                file.write(b"the dull ")
                file.flush()
                time.sleep(0.5)
                file.write(b"plot\n")
            assert process.stdout.readline().endswith("the dull plot\n")
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            finally:
                process.kill()  # whatever it made of the signal: leaving the block waits for it
    done = run("predict", "runs/reviews", "nowhere.log", "--follow", cwd=place)
    assert done.code == 2
    assert "there is no such file to follow" in done.err
    done = run("predict", "runs/reviews", "-", "--follow", cwd=place, given=b"fine\n\xff\n")
    assert done.code == 2
    assert "standard input, line 2: not valid UTF-8" in done.err
