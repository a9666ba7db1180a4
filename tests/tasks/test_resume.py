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
        ["checkpoints", ".config.json.a1b2c3d4.recurra-tmp"],
        ["checkpoints", "config.json"],
        ["checkpoints", "config.json", "tokenizer.json"],
        ["checkpoints", "config.json", "tokenizer.json", "checkpoints/best.safetensors"],
        ["checkpoints", "config.json", "tokenizer.json", "checkpoints/.last.safetensors.a1b2c3d4.recurra-tmp"],
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


def test_a_report_that_fails_loses_no_weights_and_is_made_by_resuming(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(TextClassifier, "_write_figures", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        TextClassifier(**SMALL).fit(TEXTS, LABELS, run_dir=tmp_path / "run")
    monkeypatch.undo()
    assert (tmp_path / "run/model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    assert list(TextClassifier.load(tmp_path / "run").predict(TEXTS[:2]))
    assert not (tmp_path / "run/report.html").exists()
    TextClassifier(**SMALL).fit(TEXTS, LABELS, run_dir=tmp_path / "run", resume=True)
    figures = [read_json(folder / "metrics.json") for folder in (tmp_path / "run", finished)]
    assert figures[0].keys() == figures[1].keys()
    assert (tmp_path / "run/report.html").exists()


def test_a_training_that_cannot_begin_discards_no_run(finished, tmp_path, monkeypatch):
    run = shutil.copytree(finished, tmp_path / "run")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    monkeypatch.setattr(TextClassifier, "_network", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        TextClassifier(**SMALL).fit(TEXTS, LABELS, run_dir=run, overwrite=True)
    assert before == {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}


@pytest.mark.parametrize("warmup", [0.0, 0.3])
def test_more_epochs_are_those_of_one_longer_training_or_refused(tmp_path, warmup):
    chosen = SMALL | {"schedule": "constant", "warmup": warmup, "patience": None}
    fit = lambda folder, epochs, **how: TextClassifier(**chosen | {"max_epochs": epochs}).fit(
        TEXTS, LABELS, run_dir=tmp_path / folder, **how
    )
    fit("run", 2)
    if warmup:  # its length is a part of all epochs
        with pytest.raises(RunFolderError, match=r"begun with other settings(.|\n)*max_epochs=4"):
            fit("run", 4, resume=True)
        return
    assert len(fit("run", 4, resume=True).history_) == 4
    fit("longer", 4)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (tmp_path / "longer/model.safetensors").read_bytes()
    assert len(fit("run", 3, resume=True).history_) == 4  # it has come to its end
    config = read_json(tmp_path / "run/config.json")
    write_json(tmp_path / "run/config.json", config | {"state": "training"})
    assert len(fit("run", 2, resume=True).history_) == 4  # as many as are done


def test_a_number_of_epochs_that_was_left_open_is_a_setting_as_any_other(tmp_path):
    chosen = SMALL | {"schedule": "constant", "warmup": 0.0, "max_epochs": 4}
    fit = lambda **how: TextClassifier(**chosen | how).fit(TEXTS, LABELS, run_dir=tmp_path / "run", resume=True)
    fit()
    with pytest.raises(RunFolderError, match=r"begun with other settings(.|\n)*max_epochs=None"):
        fit(max_epochs=None)


def test_a_confusion_of_too_many_classes_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("recurra.tasks.trained.MOST_CONFUSED", 1)
    classifier = TextClassifier(**SMALL | {"max_epochs": 1}).fit(TEXTS, LABELS, run_dir=tmp_path / "run")
    figures = classifier.record(tmp_path / "run", "test", TEXTS, LABELS)
    kept = read_json(tmp_path / "run/metrics.json")["test"]
    assert kept == {name: value for name, value in figures.items() if name != "confusion"}
    assert "confusion" in figures


def test_a_saved_run_has_the_settings_of_its_fit(tmp_path):
    classifier = TextClassifier(**SMALL | {"max_epochs": 1, "random_state": True}).fit(TEXTS, LABELS)
    classifier.set_params(hidden_size=16).save(tmp_path / "run")
    again = TextClassifier.load(tmp_path / "run")
    assert again.hidden_size == SMALL["hidden_size"]
    assert again.seed_ == 1
