"""Resuming a run in which no epoch has ended: it is begun anew, and what is someone else's is left alone."""

import re
import shutil

import pytest
from some_texts import SMALL, reviews

from recurra.errors import RunFolderError
from recurra.tasks import TextClassifier
from recurra.train.run_folder import write_json
from recurra.train.untrusted import read_json

TEXTS, LABELS = reviews(160)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, for tests that copy or only read it."""
    folder = tmp_path_factory.mktemp("runs") / "reviews"
    TextClassifier(**SMALL).fit(TEXTS, LABELS, run_dir=folder)
    return folder


@pytest.mark.parametrize(
    "left",
    [
        [],  # killed before it made the folder
        ["checkpoints"],
        ["checkpoints", ".config.json.a1b2c3d4"],
        ["checkpoints", "config.json"],
        ["checkpoints", "config.json", "tokenizer.json"],
        ["checkpoints", "config.json", "tokenizer.json", "checkpoints/best.safetensors"],
        ["checkpoints", "config.json", "tokenizer.json", "checkpoints/.last.safetensors.a1b2c3d4"],
    ],
    ids=lambda left: left[-1] if left else "nothing",
)
def test_a_run_killed_before_an_epochs_end_is_begun_anew_by_resume(finished, tmp_path, capsys, left):
    for name in left:
        path = tmp_path / "run" / name
        path.mkdir(parents=True) if name == "checkpoints" else path.write_bytes(b"half of a file")
    if "config.json" in left:
        write_json(tmp_path / "run/config.json", {"format": 1, "state": "new", "files": {}})
    TextClassifier(**SMALL, progress=True).fit(TEXTS, LABELS, run_dir=tmp_path / "run", resume=True)
    assert re.search(r"no epoch of a run in .*run has ended: training begins anew\n", capsys.readouterr().err)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    assert {p.name for p in (tmp_path / "run").rglob("*")} == {p.name for p in finished.rglob("*")}


def test_what_resuming_could_not_go_on_with_is_kept(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(RunFolderError, match="--resume goes on with a run and --overwrite discards it"):
        TextClassifier(**SMALL).fit(TEXTS, LABELS, run_dir=run, resume=True, overwrite=True)
    config = read_json(run / "config.json")
    write_json(run / "config.json", config | {"state": "training"})
    (run / "checkpoints/last.safetensors").unlink()
    with pytest.raises(RunFolderError, match="begun with other settings"):
        TextClassifier(**SMALL | {"hidden_size": 9}).fit(TEXTS, LABELS, run_dir=run, resume=True)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"not empty and holds no run(.|\n)*thesis\.tex"):
        TextClassifier(**SMALL).fit(TEXTS, LABELS, run_dir=tmp_path, resume=True)


def test_a_run_that_has_only_begun_is_no_classifier(tmp_path):
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run/config.json", {"format": 1, "state": "new", "files": {}})
    with pytest.raises(RunFolderError, match="the run has no weights: it is not finished"):
        TextClassifier.load(tmp_path / "run")
