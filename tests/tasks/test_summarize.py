"""Summarizer: it learns to copy, writes the same from the same seed, and its runs save, load and resume."""

import json
import re
import shutil

import matplotlib as mpl
import numpy as np
import pytest
import torch
from sklearn.base import clone
from some_pairs import SMALL_SUMMARIZER as SMALL
from some_pairs import pairs

from recurra.cells import GRUCell
from recurra.errors import (
    DataError,
    EmptyDataError,
    EmptyTextError,
    NotFittedError,
    OptionError,
    RunFolderError,
    UnknownNameError,
)
from recurra.tasks import Summarizer, TextClassifier, summarize
from recurra.tasks.summarize import Attended
from recurra.tasks.summary_pictures import MOST_WORDS, attention_picture
from recurra.train.randomness import random_states
from recurra.train.run_folder import write_json
from recurra.train.untrusted import read_json

SOURCES, TARGETS = pairs(160)


def weights(model):
    return model.network_.state_dict()


def assert_same_weights(a, b):
    assert weights(a).keys() == weights(b).keys()
    for name, value in weights(a).items():
        assert torch.equal(value, weights(b)[name]), name


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, for tests that copy or only read it."""
    folder = tmp_path_factory.mktemp("runs") / "names"
    Summarizer(**SMALL).fit(SOURCES, TARGETS, run_dir=folder, notes={"data": "names.csv"})
    return folder


@pytest.fixture(scope="module", params=[{}, {"input_feeding": True}], ids=str)
def either(request, finished, tmp_path_factory):
    """A finished run and the settings that it was made with, without and with input feeding."""
    if not request.param:
        return finished, SMALL
    folder, settings = tmp_path_factory.mktemp("fed") / "names", SMALL | request.param
    Summarizer(**settings).fit(SOURCES, TARGETS, run_dir=folder)
    return folder, settings


@pytest.fixture(scope="module")
def learnt():
    """A model that has learnt what there is to learn."""
    return Summarizer(**SMALL | {"max_epochs": 10}).fit(*pairs(400))


# --- learning ---------------------------------------------------------------------------------------------------------


def test_words_that_no_vocabulary_has_are_copied(learnt):
    sources, targets = pairs(60, seed=1)
    assert not {t.split()[1].rstrip("!") for t in targets} & {*learnt.tokenizer_.words}
    written = learnt.predict(sources)
    assert sum(a == b for a, b in zip(written, targets, strict=True)) > 45
    figures = learnt.evaluate(sources, targets)
    assert figures["rouge1"]["value"] > 80 > figures["baselines"]["lead"]["rouge1"]["value"]
    assert figures["rouge1"]["low"] <= figures["rouge1"]["value"] <= figures["rouge1"]["high"]
    assert 0.2 < figures["copy_rate"] < 0.6
    assert figures["count"] == 60
    assert json.loads(json.dumps(figures)) == figures


def test_attention_says_what_was_copied_and_from_where(learnt, tmp_path):
    found = learnt.attended("report of the owner Zobimu and it was.")
    assert found.weights.shape == (len(found.written), len(found.source))
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-5)
    assert ((found.copied >= 0) & (found.copied <= 1 + 1e-6)).all()
    row = found.written.index("Zobimu")
    assert found.copied[row] > 0.9
    assert found.source[found.weights[row].argmax()] == "Zobimu"
    told = learnt.attended("report of the owner Zobimu.", "Ask Zobimu")
    assert told.written == ["Ask", "Zobimu"]
    for name in ("a.png", "a.svg"):
        attention_picture(found, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tmp_path / "a.svg").read_text()
    with pytest.raises(OptionError, match=r"written as .png or .svg or .pdf(.|\n)*a\.gif"):
        attention_picture(found, tmp_path / "a.gif")


def test_one_pair_leaves_none_to_hold_out():
    with pytest.raises(DataError, match=r"one pair leaves none to hold out(.|\n)*validation_fraction=0"):
        Summarizer(**SMALL).fit(["a text"], ["text"])
    with pytest.raises(NotFittedError):
        Summarizer(**SMALL).batch(["a text"], ["text"])


def test_a_source_is_shown_as_it_is_read(learnt):
    model = Summarizer(**SMALL | {"lowercase": True, "max_epochs": 1}).fit(SOURCES, TARGETS)
    assert model.attended("The owner Zobimu", "ask Zobimu").source == ["the", "owner", "zobimu"]
    assert learnt.attended("The owner Zobimu", "Ask Zobimu").source == ["The", "owner", "Zobimu"]


def test_what_a_training_ends_with_is_spread_over_all_held_out_pairs(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("recurra.tasks.summarize.REPORTED", 10)
    monkeypatch.setattr(Summarizer, "record", lambda *given: seen.append(given[3]))
    held = SOURCES[:19], TARGETS[:19]
    Summarizer(**SMALL | {"max_epochs": 1}).fit(SOURCES, TARGETS, validation=held, run_dir=tmp_path / "run")
    (shown,) = seen
    assert (len({*shown}), shown[0], shown[-1]) == (10, held[0][0], held[0][-1])


def test_a_frame_is_around_an_equal_word_of_the_source(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(mpl.axes.Axes, "add_patch", lambda _, patch: drawn.append(patch.get_xy()))
    source = ["of", "Zobimu", *["word"] * MOST_WORDS, "far"]
    weights = np.zeros((2, len(source)), np.float32)
    weights[:, 0], weights[:, 1], weights[:, -1] = 0.6, 0.3, 0.1
    attention_picture(Attended(source, ["Zobimu", "far"], weights, np.ones(2, np.float32)), tmp_path / "a.png")
    assert drawn == [(0.5, -0.5)]  # "far" stands beyond the words that are drawn


@pytest.mark.parametrize(
    "source",
    [
        "owner",
        "completely unseen vocabulary everywhere",
        "the report of " * 500 + "owner Zobimu",  # longer than anything in training
        "ответ владельца не найден",
        "持ち主に聞いてください",
        "!!! ??? ...",
        "￭",
        "😀 😀",
        "a\x00b \u200b c",
        "x" * 5000,
    ],
    ids=lambda s: ascii(s)[:20],
)
def test_any_source_has_a_summary(learnt, source):
    (written,) = learnt.predict([source])
    assert written.strip()
    assert len(written.split()) <= SMALL["max_target_tokens"]
    assert not {"[UNK]", "[PAD]", "[BEGIN]", "[END]"} & {*written.split()}
    found = learnt.attended(source)
    assert len(found.written) == len(found.copied)


def test_sources_that_cannot_be_summarised(learnt):
    with pytest.raises(EmptyTextError, match=r"sources\[1\] has no text"):
        learnt.predict(["owner", " \n"])
    with pytest.raises(DataError, match=r"sources must be a sequence of texts(.|\n)*\[text\]"):
        learnt.predict("owner")
    with pytest.raises(EmptyDataError, match="sources is empty"):
        learnt.predict([])
    with pytest.raises(OptionError, match="beam must be an integer of at least 1"):
        learnt.predict(["owner"], beam=0)
    with pytest.raises(OptionError, match="temperature must be a number above 0"):
        learnt.predict(["owner"], temperature=0)
    with pytest.raises(DataError, match="references must be as many as the sources\n.*1 references, 2 sources"):
        learnt.evaluate(["a", "b"], ["a"])
    with pytest.raises(EmptyDataError, match=r"references\[1\] is empty"):
        learnt.evaluate(["a", "b"], ["a", []])
    with pytest.raises(EmptyTextError, match=r"references\[1\]\[0\] is a missing value"):
        learnt.evaluate(["a", "b"], [["a", "c"], None])


def test_searches(learnt):
    sources, _ = pairs(10, seed=3)
    assert learnt.predict(sources) == learnt.predict(sources)
    assert learnt.predict(sources[::-1]) == learnt.predict(sources)[::-1]
    drawn = learnt.predict(sources, temperature=3.0, seed=1)
    assert drawn == learnt.predict(sources, temperature=3.0, seed=1)
    assert drawn != learnt.predict(sources, temperature=3.0, seed=2)
    assert learnt.predict(sources, temperature=1e-4) == learnt.predict(sources, beam=1)
    for found, best in zip(learnt.candidates(sources, beam=3), learnt.predict(sources, beam=3), strict=True):
        assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
        assert found[0][0] == best
        assert len(found) <= 3


def test_the_same_seed_gives_the_same_weights(finished):
    states = random_states()
    again = Summarizer(**SMALL).fit(SOURCES, TARGETS)
    assert torch.equal(states["torch"], random_states()["torch"])
    assert_same_weights(Summarizer.load(finished), again)


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "lstm", "attention": "additive", "hidden_size": [8, 6], "num_layers": None},
        {"cell": lambda D, H: GRUCell(D, H, reset="before"), "copying": False},
        {"cell": "lstmp", "lowercase": True, "label_smoothing": 0.1, "dropout": 0.1, "word_dropout": 0.1},
        {"cell": "slstm", "validation_fraction": 0, "embedding_dropout": 0.1},
        {"unit": "subword", "vocab_size": 150, "cell": "lstm"},
        {"cell": "rnn", "input_feeding": True},
    ],
    ids=lambda o: str(o["cell"])[:5],
)
def test_cells_and_settings(options):
    model = Summarizer(**SMALL | {"max_epochs": 1} | options).fit(SOURCES[:64], TARGETS[:64])
    assert np.isfinite(model.history_[-1]["loss"])
    assert len(model.predict(SOURCES[:3])) == 3
    if not model.copying:
        assert model.evaluate(SOURCES[:4], TARGETS[:4])["copy_rate"] == 0
    if model.lowercase:
        assert model.tokenizer_.words == [w.lower() if w[0] != "[" else w for w in model.tokenizer_.words]


def test_settings_that_cannot_be():
    refused = [
        ({"attention": "additiv"}, UnknownNameError, "no attention of that name(.|\n)*'additive'"),
        ({"cell": "lstn"}, UnknownNameError, "'lstm'"),
        ({"vocab_size": 4}, OptionError, "vocab_size must be an integer of at least 5"),
        ({"unit": "subwords"}, UnknownNameError, "no unit of that name(.|\n)*'subword'"),
        ({"beam": 0}, OptionError, "beam must be an integer of at least 1"),
        ({"label_smoothing": 1.0}, OptionError, "label_smoothing must be a number at least 0 and below 1"),
        ({"length_penalty": -1}, OptionError, "length_penalty must be a number at least 0"),
        ({"max_length": 0}, OptionError, "max_length must be an integer of at least 1"),
        ({"random_state": -1}, OptionError, "random_state must be at least 0"),
    ]
    for options, error, said in refused:
        with pytest.raises(error, match=said):
            Summarizer(**SMALL | options).fit(SOURCES, TARGETS)
    with pytest.raises(DataError, match="targets must be as many"):
        Summarizer(**SMALL).fit(SOURCES, TARGETS[1:])
    with pytest.raises(EmptyTextError, match=r"validation targets\[0\] has no text"):
        Summarizer(**SMALL).fit(SOURCES, TARGETS, validation=(["a"], [" "]))
    with pytest.raises(EmptyDataError, match="no word comes 99 times"):
        Summarizer(**SMALL | {"min_count": 99, "validation_fraction": 0}).fit(["a b"], ["a"])
    with pytest.raises(OptionError, match="resume=True needs the run folder"):
        Summarizer(**SMALL).fit(SOURCES, TARGETS, resume=True)
    with pytest.raises(NotFittedError, match="not fitted"):
        Summarizer().predict(["a"])
    assert clone(Summarizer(**SMALL)).get_params() == Summarizer(**SMALL).get_params()


# --- run folders ------------------------------------------------------------------------------------------------------


def test_the_run_folder_holds_what_it_should(finished):
    names = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert names == {
        *("config.json", "model.safetensors", "tokenizer.json", "metrics.json", "report.html"),
        *("checkpoints/best.safetensors", "checkpoints/last.safetensors"),
    }
    config, metrics = read_json(finished / "config.json"), read_json(finished / "metrics.json")
    assert (config["task"], config["state"], config["seed"]) == ("summarize", "finished", 0)
    assert config["notes"] == {"data": "names.csv"}
    assert metrics["held out"]["count"] == 16
    assert metrics["held out"]["baselines"].keys() == {"lead", "copy"}
    report = (finished / "report.html").read_text()
    for heading in ("Training", "Scores, held out pairs", "Examples", "The worst", "Lengths", "The plan"):
        assert f"<h2>{heading}</h2>" in report
    assert "first sentence" in report


def test_a_saved_summariser_is_loaded(either, tmp_path):
    model = Summarizer.load(either[0])
    assert model.input_feeding == bool(either[1].get("input_feeding"))
    model.save(tmp_path / "run")
    again = Summarizer.load(tmp_path / "run")
    assert again.predict(SOURCES[:9]) == model.predict(SOURCES[:9])
    assert again.get_params() == model.get_params()
    assert again.tokenizer_.words == model.tokenizer_.words
    assert_same_weights(again, model)
    with pytest.raises(RunFolderError, match="already holds a finished run"):
        model.save(tmp_path / "run")
    with pytest.raises(RunFolderError, match="of another task than 'classify'\n.*summarize"):
        TextClassifier.load(tmp_path / "run")


def test_a_run_from_before_there_was_input_feeding_is_loaded(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    config = read_json(run / "config.json")
    del config["settings"]["input_feeding"]
    write_json(run / "config.json", config)
    assert Summarizer.load(run).predict(SOURCES[:9]) == Summarizer.load(finished).predict(SOURCES[:9])
    again = Summarizer(**SMALL).fit(SOURCES, TARGETS, run_dir=run, resume=True)
    assert not again.input_feeding


def test_a_test_split_joins_the_others(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    model = Summarizer.load(run)
    sources, targets = pairs(12, seed=5)
    figures = model.record(run, "test", sources, targets)
    assert read_json(run / "metrics.json")["test"] == figures == model.evaluate(sources, targets)
    report = (run / "report.html").read_text()
    assert "Scores, test pairs" in report
    assert "best of" not in report
    several = model.record(run, "test", sources, [[target, "Ask somebody"] for target in targets])
    best = several.pop("best_reference")
    assert several == figures
    assert best["count"] == 24
    assert best["rouge1"]["value"] >= figures["rouge1"]["value"]
    assert "best of 24 references" in (run / "report.html").read_text()


def test_a_run_stopped_and_resumed_equals_the_unbroken_one(either, tmp_path, monkeypatch):
    finished, settings = either
    count, objective = 0, summarize.likelihood

    def with_interruption(network, batch, **options):
        nonlocal count
        count += network.training
        if count > 12:
            raise KeyboardInterrupt
        return objective(network, batch, **options)

    with monkeypatch.context() as patch:
        patch.setattr(summarize, "likelihood", with_interruption)
        with pytest.raises(KeyboardInterrupt, match="in epoch 2: the end of epoch 1 is saved"):
            Summarizer(**settings).fit(SOURCES, TARGETS, run_dir=tmp_path / "run")
    with pytest.raises(RunFolderError, match="has no weights"):
        Summarizer.load(tmp_path / "run")
    with pytest.raises(RunFolderError, match="begun with other settings or data"):
        Summarizer(**settings | {"hidden_size": 25}).fit(SOURCES, TARGETS, run_dir=tmp_path / "run", resume=True)
    resumed = Summarizer(**settings | {"beam": 3}).fit(SOURCES, TARGETS, run_dir=tmp_path / "run", resume=True)
    assert_same_weights(resumed, Summarizer.load(finished))
    again = Summarizer(**settings | {"beam": 3}).fit(SOURCES, TARGETS, run_dir=tmp_path / "run", resume=True)
    assert_same_weights(again, resumed)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("tokenizer.json", {"format": "recurra words 9"}, "no vocabulary of words"),
        ("tokenizer.json", {"words": ["[PAD]"]}, "no vocabulary of words"),
        ("config.json", {"settings": {"hidden_size": 10**9}}, "damaged"),
        ("config.json", {"settings": {"attention": "additiv"}}, "a setting"),
        ("config.json", {"settings": {"surprise": 1}}, "settings that this version"),
    ],
)
def test_a_damaged_run_is_refused(finished, tmp_path, file, change, said):
    run = shutil.copytree(finished, tmp_path / "run")
    document = read_json(run / file)
    for key, value in change.items():
        document[key] = {**document[key], **value} if isinstance(value, dict) else value
    write_json(run / file, document)
    if file == "tokenizer.json":
        config = read_json(run / "config.json")
        import hashlib

        content = (run / file).read_bytes()
        config["files"][file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        write_json(run / "config.json", config)
    with pytest.raises(RunFolderError, match=re.escape(said)):
        Summarizer.load(run)
