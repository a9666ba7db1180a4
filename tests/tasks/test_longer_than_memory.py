"""Texts that memory does not hold: the same results as of a list or a string, and nothing large is held."""

import tracemalloc

import numpy as np
import pytest
from sklearn.base import clone
from some_texts import SMALL as CLASSIFIER
from some_texts import reviews
from test_language import SMALL as WRITER
from test_language import TEXT, assert_same_weights

from recurra.data import Texts, load_text
from recurra.errors import EmptyDataError
from recurra.tasks import LanguageModel, TextClassifier

TEXTS, LABELS = reviews(160)


def test_texts_in_a_file_are_learnt_from_and_classified_as_a_list_is(monkeypatch):
    stored, fitted = Texts(TEXTS), TextClassifier(**CLASSIFIER).fit(TEXTS, LABELS)
    again = clone(fitted).fit(stored, LABELS)
    assert_same_weights(again, fitted)
    assert again.about_["data"] == fitted.about_["data"]
    whole = fitted.predict_proba(TEXTS)
    assert np.array_equal(again.predict_proba(stored), whole)
    monkeypatch.setattr("recurra.tasks.classify.AT_ONCE", 50)
    np.testing.assert_allclose(again.predict_proba(stored), whole, atol=1e-6)


def test_neither_texts_nor_their_words_are_held_in_memory(monkeypatch):
    monkeypatch.setattr("recurra.data.vocabulary.AT_ONCE", 64)
    monkeypatch.setattr("recurra.tasks.classify.AT_ONCE", 128)
    texts, labels = Texts("never read: " * 500 + text for text in TEXTS * 8), LABELS * 8
    changed = {
        "max_epochs": 1,
        "batch_size": 64,
        "max_tokens": 1000,
        "validation_fraction": 0,
        "word_vectors": "random",
    }
    model = TextClassifier(**CLASSIFIER | changed)
    tracemalloc.start()
    model.fit(texts, labels)
    model.evaluate(texts, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert texts.characters > 7_000_000
    assert peak < 5_000_000, f"{peak:,}"  # ids of 4 bytes would be as much


def test_a_file_and_texts_that_are_made_one_by_one_are_read_as_a_string_is(tmp_path):
    path, model = tmp_path / "lines.txt", LanguageModel(**WRITER | {"max_epochs": 1})
    path.write_text(TEXT)
    whole = clone(model).fit(TEXT)
    for given in (path, load_text(path).train.texts, (line for line in TEXT.splitlines(keepends=True))):
        again = clone(model).fit(given)
        assert_same_weights(again, whole)
        assert again.about_["data"] == whole.about_["data"]
    expected = whole.evaluate(TEXT[:700])
    path.write_text(TEXT[:700])
    assert whole.evaluate(path) == whole.evaluate(load_text(path).train.texts) == expected
    path.write_text(" \n")
    with pytest.raises(EmptyDataError, match=r"lines\.txt is empty"):
        whole.evaluate(path)


@pytest.mark.parametrize("unit", ["char", "word"])
def test_neither_a_text_nor_its_tokens_are_held_in_memory(tmp_path, monkeypatch, unit):
    path = tmp_path / "long.txt"
    path.write_text(TEXT * 1500)
    characters = path.stat().st_size
    tokens = characters if unit == "char" else len(TEXT.split()) * 1500
    assert characters > 3_000_000
    monkeypatch.setattr("recurra.data.stored.PIECE", 1 << 15)
    settings = {"unit": unit, "batch_size": 300, "chunk": 200, "max_epochs": 1, "validation_fraction": 0.01}
    model = LanguageModel(**WRITER | settings).fit(TEXT)  # what libraries load is no memory of a text
    tracemalloc.start()
    model.fit(path)
    figures = model.evaluate(path, chunk=5000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert figures["characters"] == characters
    assert peak < min(characters, 8 * tokens), f"{peak:,}"
