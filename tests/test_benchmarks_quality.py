"""The bars of what writes texts: each row is a command that there is, its figures are held to its bars."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1]))
from benchmarks import quality
from benchmarks.figure import Figure
from benchmarks.quality import ROWS, Row, beyond_lead, main, of, trained

from recurra.cli.main import app


@pytest.mark.parametrize("name", ROWS)
def test_each_row_is_a_command_with_a_preset(name):
    words = ROWS[name].command.split()
    told = CliRunner().invoke(app, ["train", words[0], "--help"], env={"COLUMNS": "300"})
    assert told.exit_code == 0
    assert words[words.index("--preset") + 1] in told.output
    assert {word for word in words if word.startswith("--")} <= {"--preset", "--epochs"}


def test_a_figure_is_held_to_its_bar():
    assert str(Figure("BLEU", 25.0, 25, "{:.1f}")) == "BLEU: 25.0 (bar: 25.0): holds"
    assert str(Figure("perplexity", 105.1, 105, "{:.1f}", at_most=True)).endswith("(bar: at most 105.0): missed")
    score = lambda ours, lead: {"value": ours, "low": 0, "high": 0}
    test = {name: score(30.0, 0) for name in ("rouge1", "rougeL")}
    test["baselines"] = {"lead": {"rouge1": {"value": 20.0}, "rougeL": {"value": 20.1}}}
    assert [figure.holds for figure in beyond_lead(test)] == [True, False]


TEXT = "the cat sat on the mat\n"


def test_a_row_is_trained_and_a_failure_is_told(tmp_path, monkeypatch, capsys):
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_text(TEXT * 40, "utf-8")
    small = f"language {tmp_path} --unit char --hidden-size 8 --embedding-size 4 --chunk 8 --batch-size 4 --epochs 1"
    good = Row(small, of("perplexity", 1e9, at_most=True))
    done = trained(good, tmp_path, tmp_path / "run")
    assert [figure.holds for figure in done.figures] == [True], done.failure
    assert not trained(Row("language nowhere.txt", of("perplexity", 1)), tmp_path, tmp_path / "none").figures
    rows = {"good": good, "bad": Row("language nowhere.txt", of("perplexity", 1))}
    monkeypatch.setattr(quality, "ROWS", rows)
    assert main(["good", "--data", str(tmp_path)]) == 0
    assert main(["--data", str(tmp_path), "--at-once", "1"]) == 1
    out = capsys.readouterr().out
    assert "exit code 2: " in out
    assert out.count(": holds") == 2
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "there is no row nothing; they are good, bad" in capsys.readouterr().err
