"""TextClassifier: scikit-learn's manners, the same weights from the same seed, and runs that save, load and resume."""

import json
import pickle
import random

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted
from some_texts import SMALL, messages, reviews

from recurra.cells import GRUCell, LSTMCell
from recurra.errors import (
    DataError,
    EmptyDataError,
    EmptyTextError,
    NotFittedError,
    OptionError,
    RunFolderError,
    SingleClassError,
    UnknownNameError,
)
from recurra.tasks import TextClassifier
from recurra.train.checkpoint import load as load_checkpoint
from recurra.train.randomness import random_states
from recurra.train.run_folder import write_json
from recurra.train.untrusted import read_json

TEXTS, LABELS = reviews(160)


def weights(classifier):
    return classifier.network_.state_dict()


def assert_same_weights(a, b):
    assert weights(a).keys() == weights(b).keys()
    for name, value in weights(a).items():
        assert torch.equal(value, weights(b)[name]), name


@pytest.fixture(scope="module")
def fitted():
    return TextClassifier(**SMALL).fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, for tests that copy or only read it."""
    folder = tmp_path_factory.mktemp("runs") / "reviews"
    TextClassifier(**SMALL).fit(TEXTS, LABELS, run_dir=folder, notes={"data": "reviews.csv"})
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it that a test may damage."""
    import shutil

    return shutil.copytree(finished, tmp_path / "run")


# --- learning ---------------------------------------------------------------------------------------------------------


def test_it_learns():
    classifier = TextClassifier(**SMALL | {"max_epochs": 12, "learning_rate": 0.01}).fit(TEXTS, LABELS)
    texts, labels = reviews(100, seed=1)
    assert classifier.score(texts, labels) > 0.9
    assert classifier.history_[0]["loss"] > classifier.history_[-1]["loss"]


def test_it_learns_from_real_messages():
    texts, labels = messages(0, 800)
    chosen = {"hidden_size": 16, "max_tokens": 40, "max_epochs": 6, "learning_rate": 0.01}
    classifier = TextClassifier(**SMALL | chosen).fit(texts, labels)
    texts, labels = messages(800, 1600)
    most_frequent = max(labels.count("ham"), labels.count("spam")) / len(labels)
    assert classifier.score(texts, labels) > most_frequent + 0.05


@pytest.mark.parametrize("cell", ["gru", LSTMCell, lambda D, H: GRUCell(D, H, reset="before")])
def test_cells_by_name_class_and_function(cell):
    classifier = TextClassifier(**SMALL | {"cell": cell, "max_epochs": 1}).fit(TEXTS, LABELS)
    assert classifier.predict(TEXTS[:3]).shape == (3,)


def test_the_same_seed_gives_the_same_weights(fitted):
    settings = SMALL | {"dropout": 0.2, "word_dropout": 0.1}  # the defaults
    again = TextClassifier(**settings).fit(TEXTS, LABELS)
    assert_same_weights(fitted, again)
    other = TextClassifier(**settings | {"random_state": 1}).fit(TEXTS, LABELS)
    assert not torch.equal(weights(other)["head.weight"], weights(again)["head.weight"])


def test_the_callers_random_states_and_threads_stay(fitted):
    states, threads = random_states(), torch.get_num_threads()
    clone(fitted).fit(TEXTS[:40], LABELS[:40])
    after = random_states()
    assert torch.equal(states["torch"], after["torch"])
    assert states["python"] == after["python"] == random.getstate()
    np.testing.assert_array_equal(states["numpy"][1], after["numpy"][1])
    assert torch.get_num_threads() == threads


def test_given_validation_decides_and_is_not_learnt_from(fitted):
    held = reviews(30, seed=2)
    classifier = clone(fitted).fit(TEXTS, LABELS, validation=held)
    figures = classifier.evaluate(*held)
    kept = classifier.history_[classifier.best_epoch_ - 1]
    assert figures["accuracy"] == pytest.approx(kept["valid_accuracy"], abs=1e-6)
    assert figures["log_loss"] == pytest.approx(kept["valid_loss"], rel=1e-4)


def test_without_validation_the_last_epoch_is_kept():
    classifier = TextClassifier(**SMALL | {"validation_fraction": 0}).fit(TEXTS, LABELS)
    assert classifier.best_epoch_ == len(classifier.history_) == SMALL["max_epochs"]
    assert "valid_loss" not in classifier.history_[0]


@pytest.mark.parametrize("values", [[3, 1], [True, False], ["é", "日本"]])
def test_labels_of_each_type(values, tmp_path):
    labels = [values[label == "good"] for label in LABELS]
    classifier = TextClassifier(**SMALL | {"max_epochs": 1}).fit(TEXTS, labels)
    assert classifier.classes_.tolist() == sorted(values)
    assert set(classifier.predict(TEXTS).tolist()) <= set(values)
    classifier.save(tmp_path / "run")
    again = TextClassifier.load(tmp_path / "run")
    assert again.classes_.tolist() == sorted(values)
    assert again.classes_.dtype == classifier.classes_.dtype


# --- scikit-learn's manners -------------------------------------------------------------------------------------------


def test_parameters_are_kept_verbatim():
    widths, state = [8, 4], np.random.RandomState(3)
    classifier = TextClassifier(hidden_size=widths, num_layers=None, random_state=state)
    assert classifier.get_params()["hidden_size"] is widths
    assert classifier.random_state is state
    assert classifier.set_params(cell="gru").cell == "gru"
    assert is_classifier(classifier)
    with pytest.raises(ValueError, match="Invalid parameter 'hiden_size'"):
        classifier.set_params(hiden_size=3)
    with pytest.raises(TypeError):
        TextClassifier("lstm")


def test_clones_are_unfitted_and_equal(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "network_")
    with pytest.raises(NotFittedError, match=r"is not fitted(.|\n)*fit"):
        copy.predict(TEXTS)
    with pytest.raises(ValueError, match="not fitted"):
        check_is_fitted(copy)
    check_is_fitted(fitted)


def test_it_works_in_a_grid_search_and_a_pipeline():
    grid = {"cell": ["gru"], "hidden_size": np.array([4, 6]), "learning_rate": np.array([0.01])}
    search = GridSearchCV(TextClassifier(**SMALL | {"max_epochs": 1}), grid, cv=2, error_score="raise").fit(
        TEXTS, LABELS
    )
    assert search.best_params_["hidden_size"] in (4, 6)
    assert search.predict(TEXTS[:5]).shape == (5,)
    pipeline = make_pipeline(TextClassifier(**SMALL | {"max_epochs": 1}))
    assert cross_val_score(pipeline, np.array(TEXTS), np.array(LABELS), cv=2).shape == (2,)


def test_columns_of_pandas_and_numpy_are_texts_too(fitted):
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS})
    assert_same_weights(fitted, clone(fitted).fit(frame["text"], frame["label"]))
    assert_same_weights(fitted, clone(fitted).fit(np.array(TEXTS), np.array(LABELS)))
    assert_same_weights(fitted, clone(fitted).fit(iter(TEXTS), (label for label in LABELS)))


def test_probabilities(fitted):
    found = fitted.predict_proba(TEXTS)
    assert found.shape == (len(TEXTS), 2)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)
    np.testing.assert_array_equal(fitted.classes_[found.argmax(1)], fitted.predict(TEXTS))
    order = np.random.RandomState(0).permutation(len(TEXTS))
    np.testing.assert_allclose(fitted.predict_proba([TEXTS[i] for i in order]), found[order], rtol=1e-5)
    assert fitted.score(TEXTS, LABELS) == fitted.evaluate(TEXTS, LABELS)["accuracy"]


def test_pickling_keeps_a_fitted_classifier(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(TEXTS), fitted.predict_proba(TEXTS))


def test_a_failed_fit_leaves_nothing_fitted():
    classifier = TextClassifier(**SMALL | {"max_epochs": 1}).fit(TEXTS, LABELS)
    with pytest.raises(SingleClassError):
        classifier.fit(TEXTS, ["good"] * len(TEXTS))
    with pytest.raises(NotFittedError):
        classifier.predict(TEXTS)


def test_figures_by_hand():
    from recurra.tasks.figures import classification_figures

    targets = np.array([0, 0, 0, 1, 1, 2])
    probabilities = np.array(
        [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.2, 0.2], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2]]
    )
    probabilities = np.pad(probabilities, ((0, 0), (0, 1)))
    found = classification_figures(targets, probabilities, np.array(["a", "b", "c", "never"]))
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["confusion"] == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.2, 0.6, 0.6, 0.8, 0.2]).mean())
    assert [c["count"] for c in found["classes"]] == [3, 2, 1, 0]
    assert json.loads(json.dumps(found)) == found


# --- run folders ------------------------------------------------------------------------------------------------------


def test_a_saved_classifier_is_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "run")
    again = TextClassifier.load(tmp_path / "run")
    np.testing.assert_array_equal(again.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    assert again.get_params() == fitted.get_params()
    assert again.history_ == fitted.history_
    assert_same_weights(fitted, clone(again).fit(TEXTS, LABELS))
    with pytest.raises(RunFolderError, match="already holds a finished run"):
        fitted.save(tmp_path / "run")
    fitted.save(tmp_path / "run", overwrite=True)
    with pytest.raises(NotFittedError):
        clone(fitted).save(tmp_path / "other")


def test_the_run_folder_holds_what_it_should(finished, fitted):
    names = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert names == {
        *("config.json", "model.safetensors", "tokenizer.json", "metrics.json", "report.html"),
        *("checkpoints/best.safetensors", "checkpoints/last.safetensors"),
    }
    config, metrics = read_json(finished / "config.json"), read_json(finished / "metrics.json")
    assert (config["format"], config["task"], config["state"], config["seed"]) == (1, "classify", "finished", 0)
    assert config["settings"]["hidden_size"] == 8
    assert config["classes"] == ["bad", "good"]
    assert len(config["data"]["fingerprint"]) == 64
    assert config["notes"] == {"data": "reviews.csv"}
    assert config["versions"]["torch"] == torch.__version__
    assert metrics["best_epoch"] == fitted.best_epoch_
    assert len(metrics["history"]) == 3
    assert metrics["held out"]["count"] == 32
    assert "<h2>The plan</h2>" in (finished / "report.html").read_text()
    assert_same_weights(TextClassifier.load(finished), fitted)


def test_figures_of_a_test_split_join_the_others(run):
    classifier = TextClassifier.load(run)
    texts, labels = reviews(50, seed=3)
    figures = classifier.record(run, "test", texts, labels)
    metrics = read_json(run / "metrics.json")
    assert metrics["test"] == figures == classifier.evaluate(texts, labels)
    assert metrics["held out"]["count"] == 32
    assert "Confusion, test texts" in (run / "report.html").read_text()


def stop_after(monkeypatch, steps, error):
    from recurra.tasks import classify

    count, objective = 0, classify.cross_entropy

    def with_interruption(network, batch, **options):
        nonlocal count
        count += network.training
        if count > steps:
            raise error
        return objective(network, batch, **options)

    monkeypatch.setattr(classify, "cross_entropy", with_interruption)


def test_word_vectors_can_begin_with_co_occurrence():
    begun = TextClassifier(**SMALL | {"learning_rate": 1e-30}, word_vectors="cooccurrence").fit(TEXTS, LABELS)
    again = TextClassifier(**SMALL | {"learning_rate": 1e-30}, word_vectors="cooccurrence").fit(TEXTS, LABELS)
    assert_same_weights(begun, again)
    word = begun.tokenizer_.token_to_id
    vectors = begun.network_.embedding.weight.detach()
    assert vectors[2:].square().mean().sqrt().item() == pytest.approx(0.1, rel=0.05)
    alike = torch.cosine_similarity(vectors[word("lovely")], vectors[word("warm")], dim=0)
    assert alike > torch.cosine_similarity(vectors[word("lovely")], vectors[word("grim")], dim=0)
    with pytest.raises(UnknownNameError, match=r"no word vectors(.|\n)*'cooccurence'(.|\n)*cooccurrence"):
        TextClassifier(word_vectors="cooccurence").fit(TEXTS, LABELS)


def test_a_run_stopped_and_resumed_equals_the_unbroken_one(finished, tmp_path, monkeypatch):
    classifier = TextClassifier(**SMALL)
    with monkeypatch.context() as patch:
        stop_after(patch, 2 * 8 + 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt, match="in epoch 3: the end of epoch 2 is saved"):
            classifier.fit(TEXTS, LABELS, run_dir=tmp_path / "run")
    with pytest.raises(NotFittedError):
        classifier.predict(TEXTS)
    with pytest.raises(RunFolderError, match=r"has no weights(.|\n)*--resume"):
        TextClassifier.load(tmp_path / "run")
    with pytest.raises(RunFolderError, match="already holds a run that was not finished"):
        classifier.fit(TEXTS, LABELS, run_dir=tmp_path / "run")
    classifier.fit(TEXTS, LABELS, run_dir=tmp_path / "run", resume=True)
    assert_same_weights(classifier, TextClassifier.load(finished))
    a, b = (load_checkpoint(folder / "checkpoints/last.safetensors") for folder in (tmp_path / "run", finished))
    for name in a["state_dict"]:
        assert torch.equal(a["state_dict"][name], b["state_dict"][name]), name


def test_resuming_a_finished_run_trains_nothing(run, monkeypatch, fitted):
    stop_after(monkeypatch, 0, AssertionError("a finished run was trained again"))
    classifier = TextClassifier(**SMALL).fit(TEXTS, LABELS, run_dir=run, resume=True)
    assert_same_weights(classifier, fitted)


def test_resuming_with_other_settings_or_data_is_refused(run):
    with pytest.raises(RunFolderError, match=r"begun with other settings or data\n.*hidden_size=9\n.*hidden_size=8"):
        TextClassifier(**SMALL | {"hidden_size": 9}).fit(TEXTS, LABELS, run_dir=run, resume=True)
    with pytest.raises(RunFolderError, match=r"received: seed=1\n.*seed=0"):
        TextClassifier(**SMALL | {"random_state": 1}).fit(TEXTS, LABELS, run_dir=run, resume=True)
    with pytest.raises(RunFolderError, match="received: data="):
        TextClassifier(**SMALL).fit(TEXTS[1:], LABELS[1:], run_dir=run, resume=True)
    with pytest.raises(OptionError, match="resume=True needs the run folder"):
        TextClassifier(**SMALL).fit(TEXTS, LABELS, resume=True)


def test_own_cells_are_given_by_the_caller_and_never_imported(tmp_path):
    class Own(GRUCell):
        pass

    classifier = TextClassifier(**SMALL | {"cell": Own, "max_epochs": 1}).fit(TEXTS, LABELS, run_dir=tmp_path / "run")
    with pytest.raises(UnknownNameError, match=r"no cell \(give your own(.|\n)*'Own'"):
        TextClassifier.load(tmp_path / "run")
    again = TextClassifier.load(tmp_path / "run", cells=[Own])
    np.testing.assert_array_equal(again.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    resumed = TextClassifier(**SMALL | {"cell": Own, "max_epochs": 1}).fit(
        TEXTS, LABELS, run_dir=tmp_path / "run", resume=True
    )
    assert_same_weights(resumed, classifier)


def rewrite(run, **changes):
    """Change the config of a run as a stranger could, sums and all."""
    config = read_json(run / "config.json")
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    write_json(run / "config.json", config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": {"hidden_size": 10**9}}, "a setting(.|\n)*at most 1,048,576"),
        ({"settings": {"hidden_size": 10**5}}, "a setting(.|\n)*more weights than a run may have"),
        ({"settings": {"hidden_size": 9}}, "does not fit config.json: .* must be"),
        ({"settings": {"embedding_size": 10**12}}, "does not fit|a setting"),
        ({"settings": {"num_layers": 10**9}}, "number of layers\n.*1000000000"),
        ({"settings": {"hidden_size": [1] * 1000, "num_layers": None}}, "number of layers\n.*1000"),
        ({"settings": {"num_layers": "many"}}, "number of layers"),
        ({"settings": {"hidden_size": "8"}}, "damaged"),
        ({"settings": {"dropout": 7}}, "a setting(.|\n)*dropout"),
        ({"settings": {"cell": 3}}, "'cell' must be str"),
        ({"settings": {"device": "cpu"}}, "settings that this version of recurra does not know\n.*device"),
        ({"settings": {"pooling": "mean_min"}}, "pooling"),
        ({"classes": ["a"]}, "'classes' must be several"),
        ({"classes": ["a", "a"]}, "'classes' must be several"),
        ({"classes": ["a", "b", "c"]}, "does not fit config.json: head"),
        ({"classes": [[1], [2]]}, "'classes' must be several"),
        ({"seed": "x"}, "'seed' must be int"),
    ],
)
def test_a_config_that_lies_is_found_out_before_memory_is_taken(run, changes, said):
    rewrite(run, **changes)
    with pytest.raises((RunFolderError, UnknownNameError), match=said):
        TextClassifier.load(run)


def test_a_name_in_a_config_is_never_imported(run):
    for name in ("os.system", "recurra.cells.LSTMCell", "torch.nn.LSTM", "__import__"):
        rewrite(run, settings={"cell": name})
        with pytest.raises(UnknownNameError, match="no cell"):
            TextClassifier.load(run)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "metrics.json"])
def test_each_file_missing_truncated_or_damaged_is_named(run, name):
    path = run / name
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\0" * len(content)):
        path.write_bytes(damaged)
        with pytest.raises(RunFolderError, match=rf"{name}(.|\n)*instead:.*(--overwrite|version)"):
            TextClassifier.load(run)
    path.unlink()
    with pytest.raises(RunFolderError, match=rf"{name}"):
        TextClassifier.load(run)


def test_a_vocabulary_that_points_outside_is_refused(run):
    config, tokenizer = read_json(run / "config.json"), read_json(run / "tokenizer.json")
    tokenizer["model"]["vocab"]["film"] = 10**9
    write_json(run / "tokenizer.json", tokenizer)
    from recurra.train.files import sha256_of

    path = run / "tokenizer.json"
    config["files"]["tokenizer.json"] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    write_json(run / "config.json", config)
    with pytest.raises(RunFolderError, match="no vocabulary of words numbered from 0"):
        TextClassifier.load(run)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "labels", "error", "said"),
    [
        ([], [], EmptyDataError, "texts is empty"),
        ("a single text", ["a"], DataError, r"sequence of texts\n.*one str\n.*\[text\]"),
        (["a", "  \n"], ["a", "b"], EmptyTextError, r"texts\[1\] has no text\n.*'  \\n'"),
        (["a", None], ["a", "b"], EmptyTextError, r"texts\[1\] is a missing value\n.*None"),
        (["a", float("nan")], ["a", "b"], EmptyTextError, r"texts\[1\] is a missing value\n.*nan"),
        (["a", 3], ["a", "b"], DataError, r"texts\[1\] is no text\n.*int"),
        (["a", "b"], ["a"], DataError, "as many as the texts\n.*1 labels, 2 texts"),
        (["a", "b"], ["a", None], DataError, r"labels\[1\] is a missing value"),
        (["a", "b"], ["a", 1], DataError, "all strings, all integers or all booleans\n.*int, str"),
        (["a", "b"], [0.5, 1.5], DataError, "all strings, all integers or all booleans\n.*float"),
        (["a", "b"], ["good", "good"], SingleClassError, "at least two classes\n.*only good, 2 times"),
    ],
)
def test_texts_and_labels_that_cannot_be_learnt_from(texts, labels, error, said):
    with pytest.raises(error, match=said):
        TextClassifier(**SMALL).fit(texts, labels)


@pytest.mark.parametrize(
    ("setting", "error", "said"),
    [
        ({"cell": "lstn"}, UnknownNameError, "no cell of that name\n.*'lstn'\n.*'lstm'?"),
        ({"pooling": "mean_mx"}, UnknownNameError, "no pooling"),
        ({"monitor": "accuracy"}, UnknownNameError, "no monitor(.|\n)*'valid_accuracy'?"),
        ({"accelerator": "cpuu"}, UnknownNameError, "no accelerator(.|\n)*'cpu'?"),
        ({"dropout": 1.0}, OptionError, "dropout must be a number at least 0 and below 1\n.*1.0"),
        ({"word_dropout": -0.1}, OptionError, "word_dropout must be"),
        ({"max_tokens": 0}, OptionError, "max_tokens must be an integer of at least 1"),
        ({"batch_size": 2.0}, OptionError, "batch_size must be an integer"),
        ({"learning_rate": float("nan")}, OptionError, "learning_rate must be a number above 0"),
        ({"clip": 0}, OptionError, "clip must be a number above 0"),
        ({"patience": 0}, OptionError, "patience must be an integer"),
        ({"hidden_size": 0}, OptionError, "hidden_size|positive"),
        ({"num_layers": 0}, OptionError, "num_layers must be a positive integer"),
        ({"random_state": -1}, OptionError, "random_state must be at least 0"),
    ],
)
def test_settings_out_of_range(setting, error, said):
    with pytest.raises(error, match=said):
        TextClassifier(**SMALL | setting).fit(TEXTS, LABELS)


def test_texts_and_labels_that_cannot_be_evaluated(fitted):
    with pytest.raises(EmptyTextError, match=r"texts\[0\] has no text"):
        fitted.predict([" "])
    with pytest.raises(EmptyDataError, match="texts is empty"):
        fitted.predict([])
    with pytest.raises(DataError, match=r"classes that the training data does not\n.*awful\n.*bad, good"):
        fitted.evaluate(["a film"], ["awful"])
    with pytest.raises(DataError, match="validation labels holds classes"):
        clone(fitted).fit(TEXTS, LABELS, validation=(["a film"], ["awful"]))


def test_words_never_seen_are_unknown_words(fitted):
    np.testing.assert_array_equal(fitted.predict_proba(["zyx wvu"]), fitted.predict_proba(["日本 tsr"]))


def test_epochs_left_open_are_enough_steps_for_a_small_table():
    classifier = TextClassifier(**SMALL | {"max_epochs": None, "hidden_size": 2, "batch_size": 4, "patience": None})
    classifier.fit(TEXTS, LABELS)
    assert len(classifier.history_) == 32  # 32 batches of 4 a pass: 1,000 steps
    assert classifier.score(TEXTS, LABELS) > 0.9
