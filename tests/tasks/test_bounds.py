"""What no task takes: settings that no machine holds, and texts and labels that would change on the way."""

import numpy as np
import pytest
import torch
from some_pairs import pairs

from recurra import LSTMCell
from recurra.cli.training import model_of
from recurra.data import WrittenWords
from recurra.diagnose import diagnose
from recurra.errors import DataError, EmptyTextError, OptionError, UndecodableFileError
from recurra.tasks import LanguageModel, Summarizer, TextClassifier
from recurra.tasks.summary_rows import read_source, word_of

TASKS = (TextClassifier, LanguageModel, Summarizer)
SMALL = {"hidden_size": 4, "embedding_size": 4, "max_epochs": 1, "validation_fraction": 0, "random_state": 0}
TEXTS = ["a fine film", "a dull film"] * 4
HALF = "holds half a character"


def fitted(task, **settings):
    data = {TextClassifier: (TEXTS, ["x", "y"] * 4), LanguageModel: (TEXTS,), Summarizer: pairs(16, 0)}[task]
    return task(**{**SMALL, **settings}).fit(*data)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 10**20}, "batch_size must be at most"),
        ({"vocab_size": 10**20}, "vocab_size must be at most"),
        ({"max_epochs": 10**20}, "max_epochs must be at most"),
        ({"hidden_size": 10**12}, "hidden_size and embedding_size must be at most"),
        ({"hidden_size": [8, 10**12], "num_layers": None}, "hidden_size and embedding_size must be at most"),
        ({"embedding_size": 10**8}, "embedding_size must be at most"),
        ({"num_layers": 100_000}, "num_layers must be at most 64"),
        ({"hidden_size": [4] * 65, "num_layers": None}, "num_layers must be at most 64"),
        ({"hidden_size": 10**6}, "more weights than a run may have"),
        ({"hidden_size": 8, "num_layers": None}, "num_layers=None goes with one hidden_size a layer"),
    ],
    ids=str,
)
def test_more_than_any_machine_holds_is_refused_before_a_text_is_read(task, settings, said):
    with pytest.raises(OptionError, match=said):
        fitted(task, **settings)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("train.untrusted.MOST_VALUES", "the vocabulary is larger"),
        ("tasks.saved.LARGEST_JSON", "the vocabulary is larger"),
        ("tasks.saved.LARGEST_WEIGHTS", "more weights than a run"),
    ],
)
def test_what_could_not_be_read_again_is_not_trained(task, limit, said, tmp_path, monkeypatch):
    monkeypatch.setattr(f"recurra.{limit}", 3)
    monkeypatch.setattr("recurra.tasks.bounds.require_weights", lambda _: None)
    data = {TextClassifier: (TEXTS, ["x", "y"] * 4), LanguageModel: (TEXTS,), Summarizer: pairs(16, 0)}[task]
    with pytest.raises(OptionError, match=said):
        task(**SMALL).fit(*data, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("task", "name"),
    [(TextClassifier, "max_tokens"), (LanguageModel, "chunk"), (Summarizer, "max_source_tokens")],
)
def test_a_length_has_a_bound(task, name):
    with pytest.raises(OptionError, match=f"{name} must be at most"):
        fitted(task, **{name: 10**20})


@pytest.mark.parametrize("task", TASKS)
def test_a_large_batch_is_all_there_is(task):
    fitted(task, batch_size=10**9)


@pytest.mark.parametrize("task", TASKS)
def test_a_cell_of_ones_own_need_not_be_made_without_memory(task):
    class Own(LSTMCell):
        def __init__(self, D, H):
            super().__init__(D, H)
            with torch.no_grad():
                self.bias[:] = torch.from_numpy(np.zeros(4 * H, np.float32))
            assert self.bias.abs().sum().item() == 0

    fitted(task, cell=Own)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_an_accelerator_that_is_not_here_is_said_before_anything_is_written(task, accelerator, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    model = task(**SMALL, accelerator=accelerator)
    with pytest.raises(OptionError, match=f"no such accelerator here.*\n.*'{accelerator}'"):
        model.fit(*(TEXTS, ["x", "y"] * 4)[: 1 if task is LanguageModel else 2], run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_accelerator_is_read(tmp_path, monkeypatch):
    model = fitted(TextClassifier)
    model.set_params(accelerator="cuda").save(tmp_path / "run")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert len(TextClassifier.load(tmp_path / "run").predict(["a film"])) == 1


@pytest.mark.parametrize("seed", [2**63, 2**64, 10**30])
def test_a_seed_has_a_bound(seed):
    with pytest.raises(OptionError, match="seed must be at most"):
        next(fitted(LanguageModel).generate("a", seed=seed))
    with pytest.raises(OptionError, match="seed must be at most"):
        fitted(Summarizer).predict(["a text"], temperature=1.0, seed=seed)
    with pytest.raises(OptionError, match="seed must be at most"):
        diagnose(torch.nn.RNN(2, 2), torch.randn(3, 1, 2), seed=seed)
    next(fitted(LanguageModel).generate("a", seed=2**63 - 1))


def test_a_digit_that_is_no_number_is_refused():
    with pytest.raises(OptionError, match="backward_memory must be"):
        model_of(TextClassifier, {"default": {}}, {"preset": "default", "seed": 0, "backward_memory": "²"})


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        (lambda: TextClassifier(**SMALL).fit(["a \ud800", "b"], ["x", "y"]), r"texts\[0\] " + HALF),
        (lambda: TextClassifier(**SMALL).fit(["a", "b"], ["x", "\ud800"]), r"labels\[1\] " + HALF),
        (lambda: LanguageModel(**SMALL).fit("a \ud800"), "the text " + HALF),
        (lambda: LanguageModel(**SMALL).fit(["a", "b \udce9"]), r"text\[1\] " + HALF),
        (lambda: next(fitted(LanguageModel, unit="subword", vocab_size=300).generate("\ud800")), "the prompt " + HALF),
        (lambda: Summarizer(**SMALL).fit(["a", "b \ud800"], ["a", "b"]), r"sources\[1\] " + HALF),
        (lambda: Summarizer(**SMALL).fit(["a", "b"], ["a", "b \ud800"]), r"targets\[1\] " + HALF),
    ],
)
def test_half_a_character_is_no_text(fit, said):
    with pytest.raises(UndecodableFileError, match=said):
        fit()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", "a\0"], r"labels\[1\] ends in a zero character"),
        ([2**63, 1], r"labels\[0\] is no integer of 64 bits\n.*64 bits"),
        ([1, -(2**70)], r"labels\[1\] is no integer of 64 bits"),
        ([np.uint64(2**63), 1], r"labels\[0\] is no integer of 64 bits"),
    ],
)
def test_labels_that_an_array_would_change_are_refused(labels, said):
    with pytest.raises(DataError, match=said):
        TextClassifier(**SMALL).fit(TEXTS, labels * 4)


def test_a_summary_without_words_has_no_attention():
    model = fitted(Summarizer)
    for written in ("", "  ", "\uffed"):
        with pytest.raises(EmptyTextError, match="no words in what was written"):
            model.attended("a text", written)


def test_references_may_be_any_sequence():
    model = fitted(Summarizer, beam=1)
    told = [model.evaluate(["a text"], [kind(["a", "b"])]) for kind in (list, tuple, np.array)]
    assert told[0] == told[1] == told[2]
    with pytest.raises(DataError, match=r"references\[0\]"):
        model.evaluate(["a text"], [5])


def test_small_letters_are_written_where_they_are_asked_for():
    words = ["[PAD]", "[UNK]", "[BEGIN]", "[END]", "ask"]
    read = read_source(WrittenWords(words, lowercase=True), "Ask ZORA, zora", 9)
    assert read.words[1] == "ZORA"
    assert read.unknown[0] == "zora"
    assert word_of(WrittenWords(words, lowercase=True), 5, read) == "zora"
    assert read_source(WrittenWords(words), "ask ZORA", 9).unknown == ["ZORA"]
