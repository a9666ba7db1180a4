"""train language, evaluate and predict on a small text, from the first command to the last, and with bad input."""

import json
import re

import numpy as np
import pytest

LINES = ["the cat sat on the mat\n", "a dog ran to the cat\n", "the dog sat\n", "a cat ran on a mat\n"]
SMALL = "--hidden-size 16 --embedding-size 8 --chunk 8 --batch-size 6 --learning-rate 0.01 --epochs 3".split()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    (folder / "data").mkdir()
    for part, count in {"train": 120, "valid": 20, "test": 20}.items():
        lines = np.random.default_rng(count).integers(0, len(LINES), count)
        (folder / "data" / f"{part}.txt").write_text("".join(LINES[i] for i in lines))
    return folder


@pytest.fixture
def place(made, run):
    """The folder, with a run of train language in runs/lines."""
    if not (made / "runs").exists():
        done = run("train", "language", "data", "--unit", "char", *SMALL, "--out", "runs/lines", cwd=made)
        assert done.code == 0, done.err
        (made / "train.out").write_text(done.out)
    return made


def test_training_says_where_things_are_and_how_well_it_went(place):
    out = (place / "train.out").read_text()
    assert re.search(r"data     data: [\d,]+ characters, \d+ characters held out, \d+ characters for testing\n", out)
    assert "run      runs/lines\n" in out
    assert re.search(r"best     epoch \d of 3: valid loss \d\.\d{4}\n", out)
    found = re.search(r"test     perplexity (\S+), (\S+) nats a token, (\S+) bits a character, on \d+ tokens\n", out)
    metrics = json.loads((place / "runs/lines/metrics.json").read_text())
    assert f"{metrics['test']['perplexity']:.2f}" == found[1]
    prompt = re.search(r"next     recurra predict runs/lines (\w+)\n", out)[1]
    assert (place / "data/train.txt").read_text().startswith(prompt)


def test_evaluating_gives_the_same_figures(run, place):
    done = run("evaluate", "runs/lines", "data", "--json", cwd=place)
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    metrics = json.loads((place / "runs/lines/metrics.json").read_text())
    assert {k: figures[k] for k in metrics["test"]} == metrics["test"]
    adapted = json.loads(run("evaluate", "runs/lines", "data", "--adapt", "0.5", "--json", cwd=place).out)
    assert adapted["perplexity"] < figures["perplexity"]
    narrow = run("evaluate", "runs/lines", "data", "--adapt", "0.5", "--weights", "bfloat16", "--json", cwd=place)
    assert json.loads(narrow.out)["perplexity"] == pytest.approx(adapted["perplexity"], rel=0.1)
    assert [(one["part"], one["adapt"]) for one in (figures, adapted)] == [("test", 0), ("test", 0.5)]
    assert (
        "data, learning from it at 0.5: perplexity"
        in run("evaluate", "runs/lines", "data", "--adapt", "0.5", cwd=place).out
    )
    shown = run("evaluate", "runs/lines", cwd=place)  # the data of the training
    assert f"perplexity {figures['perplexity']:.2f}" in shown.out
    (place / "other.txt").write_text("a cat é\n")
    assert "1 of the tokens are <unk>" in run("evaluate", "runs/lines", "other.txt", cwd=place).out


def test_writing_on_from_a_prompt(run, place):
    told = ("--length", 40, "--temperature", 0.8, "--top-k", 5, "--top-p", 0.9, "--seed", 3)
    done = run("predict", "runs/lines", "the cat", *told, cwd=place)
    assert done.code == 0, done.err
    assert done.out.startswith("the cat")
    assert len(done.out) == len("the cat") + 40 + 1
    found = json.loads(run("predict", "runs/lines", "the cat", *told, "--json", cwd=place).out)
    assert found["prompt"] + found["text"] + "\n" == done.out
    assert run("predict", "runs/lines", "-", *told, cwd=place, given=b"the cat").out == done.out
    assert len(run("predict", "runs/lines", "", cwd=place).out) == 201


def test_bad_input_is_one_message(run, place):
    (place / "untested").mkdir()
    for part in ("train", "valid"):
        (place / f"untested/{part}.txt").write_text("a cat\n")
    for arguments, said in {
        ("predict", "runs/lines", "é"): "the prompt holds characters that the training text does not",
        ("predict", "runs/lines", "a", "--top-p", 2): "top_p must be a number above 0 and at most 1",
        ("predict", "runs/lines", "a", "--text", "x"): "--text is no option for a run of task language",
        ("predict", "nowhere", "a"): "there is no such run folder",
        ("evaluate", "runs/lines", "--label", "x"): "--label is no option for a run of task language",
        ("evaluate", "runs/lines", "none.txt"): "there is no file, no folder and no corpus of that name",
        ("evaluate", "runs/lines", "untested"): "there is no part to test with",
        ("evaluate", "runs/lines", "data", "--adapt", 1, "--weights", "int8"): "weights in int8 do not learn",
        ("train", "language", "data", "--text", "body"): "names a column of a table, and there is none",
        ("train", "language", "data", "--preset", "ptb-awd", "--hidden-size", 9): "one hidden_size a layer",
        ("train", "language", "data", "--unit", "letter"): "there is no unit of that name",
        ("train", "language", "data", "--preset", "ptb"): "there is no preset of that name",
        ("train", "language", "none"): "there is no file, no folder and no corpus of that name",
        ("train", "language", "data", "--out", "runs/lines"): "the folder already holds a finished run",
    }.items():
        done = run(*arguments, cwd=place)
        assert done.code == 2, arguments
        assert done.err.startswith("error: "), done.err
        assert said in done.err


def test_a_run_of_an_unknown_task(run, tmp_path):
    (tmp_path / "config.json").write_text('{"format": 1, "task": "juggle"}')
    done = run("predict", tmp_path, "a", cwd=tmp_path)
    assert done.code == 2
    assert "a task that this version does not know" in done.err


def test_the_next_step_begins_as_a_text_without_spaces_does(run, made):
    text = "日本語の文章はここにあります" * 20
    (made / "japanese.txt").write_text(text, "utf-8")
    chosen = [*SMALL, "--unit", "char", "--out", "runs-japanese"]
    done = run("train", "language", "japanese.txt", *chosen, cwd=made)
    assert done.code == 0, done.err
    assert f"recurra predict runs-japanese {text[:80]}" in done.out.replace("'", "")


def test_words_of_a_preset_and_json(run, made):
    chosen = [*SMALL, "--num-layers", 1, "--out", "runs-word", "--json"]
    done = run("train", "language", "data/train.txt", "--preset", "ptb-small", *chosen, cwd=made)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    told = run("predict", "runs-word", "a zebra sat", "--length", 3, cwd=made)
    assert (told.code, told.err) == (0, "1 words of the prompt are unknown, and read as <unk>\n")
    assert {"run", "best_epoch", "epochs", "valid_loss"} == found.keys()
    assert json.loads((made / "runs-word/config.json").read_text())["settings"]["unit"] == "word"
