"""train summarize, evaluate and predict on a small table, from the first command to the last, and with bad input."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from some_pairs import pairs

from recurra.cli.inputs import data_of
from recurra.cli.training import notes_of
from recurra.engine.options import current_options
from recurra.kernels.cpu import native
from recurra.tasks.summarize import Attended, Summarizer

SMALL = (
    "--cell gru --hidden-size 12 --embedding-size 12 --max-target-tokens 8 --batch-size 16 --validation-fraction 0.2 "
    "--epochs 2 --learning-rate 0.01 --beam 2"
).split()


def write_pairs(path, count, seed=0):
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "mail", "title"])
        out.writerows([i, *pair] for i, pair in enumerate(zip(*pairs(count, seed), strict=True)))


COLUMNS = ["--source", "mail", "--target", "title"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with tables, and with what train summarize printed once :func:`place` has run it there."""
    folder = tmp_path_factory.mktemp("work")
    write_pairs(folder / "mail.csv", 120)
    write_pairs(folder / "test.csv", 20, seed=1)
    return folder


@pytest.fixture
def place(made, run):
    """The folder, with a run of train summarize in runs/mail."""
    if not (made / "runs").exists():
        arguments = ["train", "summarize", "mail.csv", *COLUMNS, "--test", "test.csv", *SMALL, "--out", "runs/mail"]
        done = run(*arguments, cwd=made)
        (made / "train.out").write_text(done.out)
        (made / "train.err").write_text(done.err)
        assert done.code == 0, done.err
    return made


def test_training_says_where_things_are_and_how_well_it_went(run, place):
    out, err = (place / "train.out").read_text(), (place / "train.err").read_text()
    assert "data     mail.csv: 120 pairs, 20 for testing\nrun      runs/mail\n" in out
    assert re.search(r"best     epoch \d of 2: valid loss \d\.\d{4}\n", out)
    assert re.search(
        r"test     ROUGE-1 [\d.]+, ROUGE-2 [\d.]+, ROUGE-L [\d.]+, BLEU [\d.]+, chrF [\d.]+ on 20 pairs\n", out
    )
    assert "\nlead     ROUGE-1" in out
    assert "report   runs/mail/report.html\n" in out
    metrics = json.loads((place / "runs/mail/metrics.json").read_text())
    assert metrics["test"]["count"] == 20
    assert len(err.strip().splitlines()) == 2


def test_evaluating_gives_the_same_figures(run, place):
    done = run("evaluate", "runs/mail", "test.csv", *COLUMNS, "--json", cwd=place)
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    metrics = json.loads((place / "runs/mail/metrics.json").read_text())
    assert {k: figures[k] for k in metrics["test"]} == metrics["test"]
    shown = run("evaluate", "runs/mail", "test.csv", *COLUMNS, "--beam", "1", cwd=place).out
    assert all(
        word in shown for word in ("20 pairs", "copied", "ROUGE-1", "chrF", "this run", "first sentence", "copy")
    )


def test_predicting_a_text_a_file_a_table_a_folder_and_stdin(run, place):
    text = "report of the owner Zobimu."
    done = run("predict", "runs/mail", text, "--json", "--beam", "3", cwd=place)
    (found,) = json.loads(done.out)
    assert found["summary"] == found["candidates"][0]["text"]
    assert run("predict", "runs/mail", text, "--beam", "3", cwd=place).out.strip() == found["summary"]
    (place / "lines.txt").write_text(f"{text}\n{text}\n")
    lines = run("predict", "runs/mail", "lines.txt", cwd=place).out.splitlines()
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert run("predict", "runs/mail", "-", cwd=place, given=(text + "\n").encode()).out.splitlines() == lines[:1]
    assert len(run("predict", "runs/mail", "lines.txt", "--whole", cwd=place).out.splitlines()) == 1
    assert len(run("predict", "runs/mail", "-", "--whole", cwd=place, given=b"a\n\nb\n").out.splitlines()) == 1
    table = run("predict", "runs/mail", "test.csv", "--source", "mail", "--json", cwd=place)
    assert len(json.loads(table.out)) == 20
    (place / "letters").mkdir(exist_ok=True)
    (place / "letters/a.txt").write_text(f"{text}\n\nIndeed.")
    (place / "letters/b.txt").write_text(text)
    folder = run("predict", "runs/mail", "letters", cwd=place).out
    assert re.fullmatch(r"a\.txt: .+\nb\.txt: .+\n", folder)
    assert [row["file"] for row in json.loads(run("predict", "runs/mail", "letters", "--json", cwd=place).out)] == [
        "a.txt",
        "b.txt",
    ]
    (place / "named.csv").write_text("text,body\nauthor of the,the owner and\n")  # as a training reads it: the body
    found, body, text = (
        json.loads(run("predict", "runs/mail", given, "--json", cwd=place).out)
        for given in ("named.csv", "the owner and", "author of the")
    )
    assert found == body != text


def test_a_folder_is_read_to_its_depth_without_what_is_hidden(run, place):
    for name in ("deep/below/c.txt", "deep/.hidden/d.txt", "deep/.e.txt", "deep/a.txt"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("the owner")
    found = json.loads(run("predict", "runs/mail", "deep", "--json", cwd=place).out)
    assert [row["file"] for row in found] == ["a.txt", "below/c.txt"]


def test_a_table_of_figures_is_whole_where_it_is_written_to_a_file(run, place, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    shown = run("evaluate", "runs/mail", "test.csv", *COLUMNS, cwd=place).out
    (line,) = [line for line in shown.splitlines() if "first sentence" in line]
    assert line.count("–") == 5


def test_what_rouge_cannot_read_is_said(run, place):
    (place / "russian.csv").write_text("mail,title\nthe owner,Спросить\nthe author,Ответить\n")
    shown = run("evaluate", "runs/mail", "russian.csv", *COLUMNS, cwd=place).out
    assert "ROUGE reads Latin letters without accents and digits alone" in shown
    assert "ROUGE reads" not in run("evaluate", "runs/mail", "test.csv", *COLUMNS, cwd=place).out


@pytest.mark.skipif(native() is None, reason="built without the native machine")
def test_weights_in_fewer_bits(run, place):
    score = {}
    for weights in ("float", "bfloat16", "int8"):
        done = run("predict", "runs/mail", "the owner Zobimu.", "--json", "--weights", weights, cwd=place)
        assert done.code == 0, done.err
        score[weights] = json.loads(done.out)[0]["candidates"][0]["score"]
        assert run("evaluate", "runs/mail", "test.csv", *COLUMNS, "--weights", weights, cwd=place).code == 0
    assert len({*score.values()}) == 3
    assert score == pytest.approx(dict.fromkeys(score, score["float"]), rel=0.1)
    refused = run("predict", "runs/mail", "a text", "--weights", "int4", cwd=place)
    assert refused.code == 2
    assert "weights must be one of float, bfloat16, int8" in refused.err


def test_a_picture_of_attention(run, place):
    done = run("predict", "runs/mail", "the owner Zobimu.", "--attention", "a.png", cwd=place)
    assert (done.code, done.err) == (0, "wrote a.png\n")
    assert (place / "a.png").read_bytes().startswith(b"\x89PNG")
    for arguments, said in (
        (["test.csv", "--source", "mail", "--attention", "a.png"], "of one text"),
        (["the owner", "--attention", "a.gif"], "written as .png or .svg or .pdf"),
        (["the owner", "--attention", "none/a.png"], "a folder that is there\n  received: none"),
    ):
        done = run("predict", "runs/mail", *arguments, cwd=place)
        assert (done.code, done.out) == (2, "")
        assert said in done.err


def test_a_picture_is_of_the_search_that_was_made(run, place, monkeypatch):
    seen = []
    monkeypatch.setattr(Summarizer, "attended", lambda *_: seen.append(current_options().weights) or Attended(*empty))
    empty = ["a"], ["a"], np.ones((1, 1)), np.ones(1)
    done = run("predict", "runs/mail", "the owner", "--attention", "b.svg", "--weights", "int8", cwd=place)
    assert (done.code, seen) == (0, ["int8"])


@pytest.mark.parametrize("data", ["tatoeba", "mail.csv"])
def test_a_corpus_of_pairs_is_kept_by_its_name(tmp_path, data):
    given = {"data": data, "preset": "default"}
    kept = notes_of(given, "0")["data"]
    assert kept == (data if data == "tatoeba" else str(Path(data).absolute()))
    about = {"notes": {"data": str(tmp_path / "tatoeba")}}  # of older runs
    assert data_of(SimpleNamespace(about_=about), tmp_path, None) == ("tatoeba", {})


def test_json_and_resuming_a_finished_run(run, place):
    again = ["train", "summarize", "mail.csv", *COLUMNS, *SMALL, "--out", "runs/mail"]
    done = run(*again, "--resume", "--json", cwd=place)
    assert done.code == 0, done.err
    assert json.loads(done.out)["epochs"] == 2
    refused = run(*again, cwd=place)
    assert refused.code == 2
    assert "already holds a finished run" in refused.err
    other = run(*again, "--resume", "--input-feeding", cwd=place)
    assert other.code == 2
    assert (
        "begun with other settings or data\n  received: input_feeding=True\n  instead:  input_feeding=False"
        in other.err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "summarize", "mail.csv"], "--source id"),
        (["train", "summarize", "mail.csv", "--source", "mial", "--target", "title"], "'mail'"),
        (["train", "summarize", "tatoba"], "'tatoeba'"),
        (["train", "summarize", "mail.csv", "--preset", "djago"], "'django'"),
        (["train", "summarize", "mail.csv", *COLUMNS, "--cell", "lstn"], "'lstm'"),
        (["train", "summarize", "aeslc"], "neither --data-dir nor $RECURRA_DATA"),
        (["predict", "runs/mail", " "], "there is no text"),
        (["predict", "runs/mail", ""], "there is no text"),
        (["predict", "runs/mail", "-"], "standard input is empty"),
        (["predict", "runs/mail", "-", "--whole"], "standard input holds no text"),
        (["predict", "runs/mail", "empty"], "holds no files"),
        (["predict", "runs/none", "a text"], "no such run folder"),
        (["predict", "runs/mail", "mial.txt", "--whole"], "--whole is of a file, and there is none of that name"),
        (["predict", "runs/mail", "mail.csv", "--whole", "--source", "mail"], "--source names a column of a table"),
        (["predict", "runs/mail", "a text", "--source", "mail"], "--source names a column of a table"),
        (["predict", "runs/mail", "a text", "--text", "mail"], "--text is no option for a run of task summarize"),
        (["evaluate", "runs/mail", "parted", *COLUMNS], "there is no part to test with"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_done_is_said(run, place, arguments, said):
    for folder in ("empty", "parted"):
        (place / folder).mkdir(exist_ok=True)
    for part in ("train", "dev"):
        write_pairs(place / f"parted/{part}.csv", 3)
    done = run(*arguments, cwd=place)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
