"""Data by name or by path, and the command that lists the names."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recurra.cli.main import app
from recurra.data import CORPORA, PAIRS, Splits, TextTable, load_corpus, load_splits, read_docstrings
from recurra.data.cache import write_json_lines
from recurra.data.public import IMDB
from recurra.data.table import splits_of
from recurra.errors import DataError, EmptyTextError, MissingDataError, UnknownNameError


def put_imdb(folder: Path) -> None:
    for split in ("train", "test"):
        write_json_lines(folder / f"{split}.jsonl.gz", [{"text": f"{split} {i}", "label": i} for i in (0, 1)])


def test_a_corpus_by_name(tmp_path: Path) -> None:
    put_imdb(tmp_path / "imdb")
    for splits in (load_corpus("imdb", data_dir=tmp_path), load_splits("imdb", data_dir=str(tmp_path))):
        assert splits.train == TextTable(["train 0", "train 1"], ["neg", "pos"], "imdb")
        assert splits.test == TextTable(["test 0", "test 1"], ["neg", "pos"], "imdb")


def test_an_unknown_corpus_is_suggested() -> None:
    with pytest.raises(
        UnknownNameError,
        match=r"no corpus of that name\n.*'imbd'\n.*'imdb'\? \(known: docstrings, imdb, ptb, tinyshakespeare\)",
    ):
        load_corpus("imbd")


def test_one_table(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("words,kind,text\na,x,c\nb,y,d\n")
    splits = load_splits(path, text="words", label="kind")
    assert splits.train == TextTable(["a", "b"], ["x", "y"], str(path))
    assert splits.valid is None
    assert splits.test is None
    assert load_splits(path, need_label=False).train.texts == ["c", "d"]


@pytest.mark.parametrize("valid", ["valid", "validation", "val", "dev"])
def test_a_folder_of_tables(tmp_path: Path, valid: str) -> None:
    for part in ("train", valid, "test"):
        (tmp_path / f"{part}.csv").write_text(f"text,label\n{part},x\n")
    (tmp_path / "test.txt").write_text("no table")
    (tmp_path / "training.csv").write_text("another")
    splits = load_splits(tmp_path)
    assert [t.texts for t in (splits.train, splits.valid, splits.test) if t] == [["train"], [valid], ["test"]]


def test_folders_that_do_not_say_what_to_read(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no table of training texts\n.*: empty\n.*train\.csv, train\.tsv"):
        load_splits(tmp_path)
    (tmp_path / "test.csv").write_text("text,label\na,x\n")
    with pytest.raises(MissingDataError, match=r"no table of training texts\n.*: test\.csv"):
        load_splits(tmp_path)
    for name in ("train.csv", "train.jsonl.gz"):
        (tmp_path / name).write_text("text,label\na,x\n")
    with pytest.raises(DataError, match=r"several tables of the same part\n.*train\.csv, train\.jsonl\.gz"):
        load_splits(tmp_path)


def test_nothing_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"no file, no folder and no corpus of that name\n.*'docstring'\n.*'docstrings'\?"
    ):
        load_splits("docstring")
    with pytest.raises(MissingDataError, match=r"one of: docstrings, imdb"):
        load_splits(tmp_path / "nowhere.csv")


def test_an_error_in_any_part_is_one(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,x\n")
    (tmp_path / "test.csv").write_text("text,label\n ,x\n")
    with pytest.raises(EmptyTextError, match=r"test\.csv, line 2"):
        load_splits(tmp_path)


def test_the_fingerprint_is_of_content_alone() -> None:
    def made(texts: list[str], labels: list[str], source: str = "here") -> TextTable:
        return TextTable(texts, labels, source)

    one = made(["ab", "c"], ["x", "y"])
    same = splits_of(made(["ab", "c"], ["x", "y"], "there"))
    assert splits_of(one).fingerprint == same.fingerprint
    others: list[Splits] = [
        splits_of(made(["a", "bc"], ["x", "y"])),
        splits_of(made(["c", "ab"], ["x", "y"])),
        splits_of(made(["ab", "c"], ["y", "x"])),
        splits_of(made(["ab"], ["x"]), made(["c"], ["y"])),
        splits_of(one, one),
        splits_of(one, None, one),
        splits_of(TextTable(["ab", "c"], None, "here")),
        splits_of(TextTable(["ab", "c", "x", "y"], None, "here")),
    ]
    assert len({found.fingerprint for found in [same, *others]}) == 9


@pytest.fixture
def one_small_package(monkeypatch: pytest.MonkeyPatch) -> None:
    # By its name the module is not to be had as an attribute: recurra.data has the function of that name.
    monkeypatch.setattr(sys.modules["recurra.data.docstrings"], "PACKAGES", ("typer",))


def test_the_command_lists_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RECURRA_DATA", raising=False)
    shown = CliRunner().invoke(app, ["datasets"])
    assert shown.exit_code == 0
    for name, corpus in (PAIRS | CORPORA).items():
        assert name in shown.stdout.splitlines()
        assert corpus.description in shown.stdout
        assert f"  found        not yet; on first use: {corpus.absent}" in shown.stdout.splitlines()
    said = json.loads(CliRunner().invoke(app, ["datasets", "--json"]).stdout)
    assert said.keys() == CORPORA.keys() | PAIRS.keys()
    assert said["docstrings"]["task"] == CORPORA["docstrings"].task
    assert said["imdb"]["terms"] == CORPORA["imdb"].terms
    assert {row["found"] for row in said.values()} == {None}


@pytest.mark.usefixtures("one_small_package")
def test_the_command_says_where_data_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*arguments: str) -> str | None:
        result = json.loads(CliRunner().invoke(app, ["datasets", "--json", *arguments]).stdout)["imdb"]["found"]
        assert result is None or isinstance(result, str)
        return result

    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECURRA_DATA", str(tmp_path / "data"))
    assert found() is None
    cached = tmp_path / "cache" / f"imdb-{IMDB.md5[:8]}"
    put_imdb(cached)
    assert found() == str(cached)
    put_imdb(tmp_path / "data" / "imdb")
    assert found() == str(tmp_path / "data" / "imdb")
    (tmp_path / "given").mkdir()
    assert found("--data-dir", str(tmp_path / "given")) is None
    shown = CliRunner().invoke(app, ["datasets", "--data-dir", str(tmp_path / "given")]).stdout
    assert f"  found        not in {tmp_path / 'given'}" in shown.splitlines()
    (tmp_path / "given" / IMDB.name).touch()
    assert found("--data-dir", str(tmp_path / "given")) == str(tmp_path / "given" / IMDB.name)


@pytest.mark.usefixtures("one_small_package")
def test_the_embedded_corpus_is_found_once_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path))
    assert CORPORA["docstrings"].find(None) is None
    read_docstrings()
    assert CORPORA["docstrings"].find(None) == next(tmp_path.iterdir())
