"""LanguageModel: it learns, carries its state, scores the same however it is cut, resumes, and writes as it reads."""

import itertools
import math
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from recurra.cells import LSTMCell
from recurra.errors import (
    DataError,
    EmptyDataError,
    EmptyTextError,
    NotFittedError,
    OptionError,
    RunFolderError,
    UnknownNameError,
)
from recurra.kernels.cpu import native
from recurra.tasks import LanguageModel
from recurra.tasks.language_network import LanguageNetwork, NextToken, Streams
from recurra.tasks.presets import LANGUAGE_PRESETS
from recurra.testing import assert_within_eps
from recurra.train.run_folder import write_json
from recurra.train.untrusted import read_json

LINES = ["the cat sat on the mat\n", "a dog ran to the cat\n", "the dog sat\n", "a cat ran on a mat\n"]
TEXT = "".join(LINES[i] for i in np.random.default_rng(0).integers(0, len(LINES), 120))
SMALL = {
    "unit": "char",
    "hidden_size": 16,
    "embedding_size": 8,
    "chunk": 8,
    "batch_size": 6,
    "learning_rate": 1e-2,
    "max_epochs": 3,
    "random_state": 0,
}
DROPPING = {
    "dropout": 0.2,
    "input_dropout": 0.1,
    "output_dropout": 0.2,
    "embedding_dropout": 0.1,
    "weight_dropout": 0.3,
    "activation_penalty": 1.0,
    "temporal_penalty": 0.5,
}


def assert_same_weights(a, b):
    a, b = a.network_.state_dict(), b.network_.state_dict()
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.fixture(scope="module")
def fitted():
    return LanguageModel(**SMALL).fit(TEXT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, for tests that copy or only read it."""
    folder = tmp_path_factory.mktemp("runs") / "lines"
    LanguageModel(**SMALL).fit(TEXT, run_dir=folder, notes={"data": "lines.txt"})
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(finished, tmp_path / "run")


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "size", "most"), [("char", 100, 2.2), ("word", 100, 3.0), ("subword", 300, 6.0)])
def test_it_learns(unit, size, most):
    chosen = SMALL | {"unit": unit, "vocab_size": size, "max_epochs": 12 if unit == "char" else 25}
    model = LanguageModel(**chosen).fit(TEXT)
    figures = model.evaluate("".join(reversed(LINES)) * 3)
    assert figures["perplexity"] < most
    assert model.history_[0]["valid_loss"] > model.history_[-1]["valid_loss"]


@pytest.mark.parametrize("cell", ["gru", LSTMCell, "min_gru"])
def test_cells_by_name_and_class(cell):
    model = LanguageModel(**SMALL | {"cell": cell, "max_epochs": 1, "num_layers": 2}).fit(TEXT)
    assert model.evaluate(TEXT)["perplexity"] < len(model.tokenizer_)


def test_the_same_seed_gives_the_same_weights():
    settings = SMALL | DROPPING | {"num_layers": 2, "max_epochs": 1}
    one, again = LanguageModel(**settings).fit(TEXT), LanguageModel(**settings).fit(TEXT)
    assert_same_weights(one, again)
    other = LanguageModel(**settings | {"random_state": 1}).fit(TEXT)
    assert not torch.equal(other.network_.embedding.weight, one.network_.embedding.weight)


def test_given_validation_decides_and_is_not_learnt_from(fitted):
    held = "the cat ran\na dog sat on the mat\n" * 3
    model = clone(fitted).fit(TEXT, validation=held + "é")
    assert "é" not in model.tokenizer_.index
    assert model.about_["data"]["validation_characters"] == len(held) + 1
    kept = model.history_[model.best_epoch_ - 1]
    assert kept["valid_loss"] == min(e["valid_loss"] for e in model.history_)
    # Training reads held-out text side by side, each part from a state of its own.
    assert model.evaluate(held)["nats_per_token"] == pytest.approx(kept["valid_loss"], rel=0.5)


def test_without_validation_the_last_epoch_is_kept():
    model = LanguageModel(**SMALL | {"validation_fraction": 0, "max_epochs": 2}).fit(TEXT)
    assert model.best_epoch_ == len(model.history_) == 2
    assert "valid_loss" not in model.history_[0]


def test_several_texts_end_their_lines():
    model = LanguageModel(**SMALL | {"max_epochs": 1})
    assert_same_weights(clone(model).fit(TEXT), model.fit(TEXT.splitlines()))


# --- streams of text, and the state between chunks --------------------------------------------------------------------


@pytest.mark.parametrize(("length", "rows", "chunk"), [(50, 4, 6), (7, 20, 3), (1, 3, 5), (12, 3, 4), (13, 5, 99)])
def test_every_token_is_predicted_once_by_the_one_before(length, rows, chunk):
    ids = np.arange(100, 100 + length)
    streams = Streams(ids, begin=7, batch_size=rows, chunk=chunk)
    pieces = [streams[at] for at in streams.order()]
    tokens, targets = (torch.cat([p[name] for p in pieces], 1) for name in ("tokens", "targets"))
    assert targets.flatten()[:length].tolist() == ids.tolist()
    assert set(targets.flatten()[length:].tolist()) <= {-1}
    assert tokens.flatten()[:length].tolist() == [7, *ids[:-1].tolist()]
    assert [p["begins"] for p in pieces] == [True] + [False] * (len(pieces) - 1)
    assert sum(p["count"] for p in pieces) == length
    assert all((row != -1).any() for row in targets)


def network(**changes):
    torch.manual_seed(0)
    options = {"cell": "lstm", "hidden_size": 6, "embedding_size": 6, "num_layers": 2}
    return LanguageNetwork(12, **options | changes).double()


def test_the_objective_carries_the_state_from_chunk_to_chunk_and_begins_anew():
    net, objective = network(), NextToken()
    ids = torch.randint(0, 12, (41,)).numpy()
    streams = Streams(ids, begin=3, batch_size=1, chunk=7)
    scores, _ = net(torch.tensor([[3, *ids[:-1]]]))
    expected = nn.functional.cross_entropy(scores[0], torch.from_numpy(ids))
    for _ in range(2):  # the second pass begins from the initial state, whatever the first one left
        steps = [objective(net, streams[at]) for at in streams.order()]
        assert_within_eps(sum(step.loss * step.size for step in steps) / 41, expected)
    assert sum(step.size for step in steps) == 41
    (slope,) = torch.autograd.grad(steps[1].loss, net.embedding.weight)
    assert slope.abs().sum() > 0


def test_penalties_are_of_training_alone():
    net, batch = network(), Streams(np.arange(10), begin=0, batch_size=2, chunk=9)
    batch = batch[batch.order()[0]]
    plain, told = NextToken(), NextToken(activation=2.0, temporal=1.0)
    y, _ = net.outputs(batch["tokens"], None)
    expected = plain(net, batch).loss + 2 * y.square().mean() + y.diff(dim=1).square().mean()
    torch.testing.assert_close(told(net, batch).loss, expected)
    net.eval()
    assert torch.equal(told(net, batch).loss, plain(net, batch).loss)


def test_what_is_dropped_is_dropped_in_training_alone():
    net = network(**{k: v for k, v in DROPPING.items() if "dropout" in k})
    tokens = torch.randint(0, 12, (2, 5))
    assert not torch.equal(net(tokens)[0], net(tokens)[0])
    net.eval()
    assert torch.equal(net(tokens)[0], net(tokens)[0])


def test_tied_weights_are_one_matrix_and_need_one_width():
    net = network(tied=True)
    assert sorted(n for n in net.state_dict() if "recurrent" not in n) == ["embedding.weight", "head.bias"]
    assert net(torch.zeros(2, 3, dtype=torch.int64))[0].shape == (2, 3, 12)
    with pytest.raises(OptionError, match=r"tied needs a last layer as wide(.|\n)*an output of 6(.|\n)*, 4\]"):
        network(tied=True, embedding_size=4)


# --- evaluating -------------------------------------------------------------------------------------------------------


def test_figures_are_the_same_whatever_the_chunk(fitted):
    figures = [fitted.evaluate(TEXT[:700], chunk=chunk) for chunk in (1, 7, 256, 10_000)]
    for other in figures[1:]:
        assert other == pytest.approx(figures[0], rel=1e-6)


@pytest.mark.parametrize("unit", ["char", "word", "subword"])
def test_figures_by_their_definition(unit):
    model = LanguageModel(**SMALL | {"unit": unit, "vocab_size": 300, "max_epochs": 1}).fit(TEXT)
    text = "a cat sat\non the mat\n"
    figures, ids = model.evaluate(text), torch.from_numpy(model.tokenizer_.encode(text))
    tokens = torch.cat([ids.new_tensor([model.tokenizer_.begin]), ids[:-1]])
    p = model.network_(tokens[None])[0][0].double().log_softmax(-1)
    nats = -p[torch.arange(len(ids)), ids].sum().item()
    assert figures["tokens"] == len(ids) == {"char": 21, "word": 8}.get(unit, len(ids))
    assert figures["characters"] == len(text)
    assert figures["nats_per_token"] == pytest.approx(nats / len(ids), rel=1e-5)
    assert figures["perplexity"] == pytest.approx(math.exp(nats / len(ids)), rel=1e-5)
    assert figures["bits_per_character"] == pytest.approx(nats / math.log(2) / len(text), rel=1e-5)
    assert figures["unknown"] == 0


def test_unknown_tokens_are_counted(fitted):
    assert fitted.evaluate("a cat éé\n")["unknown"] == 2


def test_presets_are_settings_and_the_treebanks_second_has_no_more_weights():
    sizes = {}
    for name, preset in LANGUAGE_PRESETS.items():
        model = LanguageModel(**preset)
        model._checked()
        model.tokenizer_ = range(10_000)
        with torch.device("meta"):
            sizes[name] = sum(p.numel() for p in model._network().parameters())
    assert sizes["ptb-awd"] < sizes["ptb-small"] < 4.7e6


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["char", "word", "subword"])
@pytest.mark.parametrize("cell", ["lstm", "qrnn"])
def test_what_is_streamed_is_what_one_scan_gives(unit, cell):
    model = LanguageModel(**SMALL | {"unit": unit, "vocab_size": 300, "cell": cell, "max_epochs": 1}).fit(TEXT)
    units = model.tokenizer_
    ids = [units.begin, *units.encode("the cat").tolist()]
    for _ in range(30):
        scores = model.network_(torch.tensor([ids]))[0][0, -1].detach()
        if units.unknown is not None:
            scores[units.unknown] = -math.inf
        ids.append(int(scores.argmax()))
    write = units.writer("the cat")
    expected = [write(i) for i in ids[1 + len(units.encode("the cat")) :]]
    assert list(model.generate("the cat", 30, temperature=0)) == expected


def test_the_same_seed_writes_the_same_text(fitted):
    told = {"length": 60, "temperature": 0.9, "top_p": 0.95}
    one, again, other = ("".join(fitted.generate("a ", seed=seed, **told)) for seed in (1, 1, 2))
    assert one == again != other
    assert len(one) == 60
    assert set(one) <= set(TEXT)


def test_writing_is_a_stream_and_leaves_the_callers_generator_alone(fitted):
    before = torch.get_rng_state()
    endless = fitted.generate(length=10**9)
    assert len([*itertools.islice(endless, 20)]) == 20
    assert not torch.is_inference_mode_enabled()
    assert torch.equal(before, torch.get_rng_state())
    assert list(fitted.generate("the", 0)) == []


def test_the_unknown_token_is_never_written():
    text = "".join(f"word{i} the cat\n" for i in range(200))
    model = LanguageModel(**SMALL | {"unit": "word", "vocab_size": 5, "max_epochs": 3}).fit(text)
    assert model.evaluate(text)["unknown"] > 100
    assert "<unk>" not in "".join(model.generate("never seen", 200))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_is_flat_over_twenty_thousand_tokens(fitted):
    resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    pieces = fitted.generate(length=20_000)
    for _ in itertools.islice(pieces, 500):
        pass
    tracemalloc.start()
    (held, _), before = tracemalloc.get_traced_memory(), resident()
    for _ in itertools.islice(pieces, 500):
        pass
    tracemalloc.stop()  # it makes the rest slow
    count = 1000 + sum(1 for _ in pieces)
    assert count == 20_000
    assert resident() - before < 4 * 2**20
    assert held < 2**20


@pytest.mark.skipif(native() is None, reason="built without the native machine")
def test_weights_in_fewer_bits_write_too(fitted):
    assert len("".join(fitted.generate("the ", 20, weights="int8"))) == 20


# --- what cannot be learnt from, or asked -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", EmptyTextError, "the text is empty"),
        (" \n", EmptyTextError, "the text is empty"),
        ("\u3000" * 30, EmptyTextError, "the text is empty"),
        ([], EmptyDataError, "text is empty"),
        (["a", " "], EmptyTextError, r"text\[1\] has no text"),
        ([3], DataError, r"text\[0\] is no text"),
        ("a", DataError, "too short to hold a part of it out"),
    ],
)
def test_texts_that_are_none(text, error, said):
    with pytest.raises(error, match=said):
        LanguageModel(**SMALL).fit(text)


@pytest.mark.parametrize(
    ("setting", "error", "said"),
    [
        ({"unit": "letter"}, UnknownNameError, r"no unit(.|\n)*'letter'(.|\n)*char, subword, word"),
        ({"cell": "lstmm"}, UnknownNameError, r"no cell(.|\n)*'lstm'"),
        ({"chunk": 0}, OptionError, "chunk must be an integer of at least 1"),
        ({"batch_size": 0}, OptionError, "batch_size must be an integer of at least 1"),
        ({"vocab_size": 256, "unit": "subword"}, OptionError, "vocab_size must be an integer of at least 257"),
        ({"vocab_size": 2}, OptionError, "vocab_size must be an integer of at least 3"),
        ({"weight_dropout": 1.0}, OptionError, "weight_dropout must be a number at least 0 and below 1"),
        ({"temporal_penalty": -1}, OptionError, "temporal_penalty must be a number at least 0"),
        ({"tied": 1}, OptionError, "tied must be True or False"),
        ({"tied": True}, OptionError, "tied needs a last layer as wide as a token's vector"),
        ({"weight_dropout": 0.1, "cell": "qrnn"}, UnknownNameError, "no weight of QRNNCell"),
        ({"optimizer": "adam"}, UnknownNameError, r"no optimizer(.|\n)*'adamw'"),
        ({"max_epochs": 0}, OptionError, "max_epochs must be an integer"),
    ],
)
def test_settings_out_of_range(setting, error, said):
    with pytest.raises(error, match=said):
        LanguageModel(**SMALL | setting).fit(TEXT)


def test_what_cannot_be_asked(fitted):
    with pytest.raises(DataError, match=r"the prompt holds characters(.|\n)*'é', '日'"):
        fitted.generate("a 日é")
    with pytest.raises(OptionError, match="top_p must be a number above 0 and at most 1"):
        fitted.generate("a", top_p=1.1)
    with pytest.raises(OptionError, match="top_k must be an integer of at least 1"):
        fitted.generate("a", top_k=0)
    with pytest.raises(OptionError, match="length must be an integer of at least 0"):
        fitted.generate("a", -1)
    with pytest.raises(EmptyTextError, match="the text is empty"):
        fitted.evaluate("")
    for call in (lambda m: m.generate("a"), lambda m: m.evaluate("a"), lambda m: m.save("nowhere")):
        with pytest.raises(NotFittedError, match="this LanguageModel is not fitted"):
            call(LanguageModel())


# --- run folders ------------------------------------------------------------------------------------------------------


def test_a_run_folder_holds_what_it_should_and_loads(finished, fitted):
    assert {p.name for p in finished.iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "metrics.json", "report.html", "checkpoints")
    }
    config = read_json(finished / "config.json")
    assert (config["task"], config["state"], config["notes"]) == ("language", "finished", {"data": "lines.txt"})
    again = LanguageModel.load(finished)
    assert_same_weights(again, fitted)
    assert again.evaluate(TEXT) == fitted.evaluate(TEXT)
    assert list(again.generate("the", 20)) == list(fitted.generate("the", 20))
    page = (finished / "report.html").read_text()
    assert all(word in page for word in ("held out perplexity", "A sample at temperature 0.8", "perplexity</text>"))


@pytest.mark.parametrize("unit", ["word", "subword"])
def test_each_unit_is_saved_and_loaded(tmp_path, unit):
    settings = (
        SMALL | DROPPING | {"unit": unit, "max_epochs": 1, "tied": True, "hidden_size": [12, 8], "num_layers": None}
    )
    model = LanguageModel(**settings).fit(TEXT)
    model.save(tmp_path / "run")
    again = LanguageModel.load(tmp_path / "run")
    assert_same_weights(again, model)
    assert again.tokenizer_.tokens == model.tokenizer_.tokens
    assert again.evaluate(TEXT) == model.evaluate(TEXT)


@pytest.mark.parametrize("chosen", [{}, {"optimizer": "sgd", "learning_rate": 5.0}], ids=["adamw", "sgd"])
def test_a_run_that_was_cut_off_resumes_to_the_weights_of_an_unbroken_one(tmp_path, monkeypatch, chosen):
    settings = SMALL | DROPPING | {"num_layers": 2, "max_epochs": 3, "patience": None} | chosen
    whole = LanguageModel(**settings).fit(TEXT, run_dir=tmp_path / "whole")
    objective, steps = NextToken.__call__, itertools.count()

    def cut(self, network, batch):
        if network.training and next(steps) > 2.5 * len(
            Streams(np.zeros(2300), begin=0, batch_size=6, chunk=8).order()
        ):
            raise KeyboardInterrupt
        return objective(self, network, batch)

    monkeypatch.setattr(NextToken, "__call__", cut)
    with pytest.raises(KeyboardInterrupt, match="training was stopped in epoch 3: the end of epoch 2 is saved"):
        LanguageModel(**settings).fit(TEXT, run_dir=tmp_path / "cut")
    monkeypatch.setattr(NextToken, "__call__", objective)
    with pytest.raises(RunFolderError, match=r"cannot be resumed(.|\n)*chunk=9"):
        LanguageModel(**settings | {"chunk": 9}).fit(TEXT, run_dir=tmp_path / "cut", resume=True)
    resumed = LanguageModel(**settings).fit(TEXT, run_dir=tmp_path / "cut", resume=True)
    assert_same_weights(resumed, whole)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_a_finished_run_is_not_trained_again(run, monkeypatch):
    before = (run / "model.safetensors").read_bytes()
    monkeypatch.setattr(NextToken, "__call__", lambda *_: pytest.fail("it is trained"))
    assert_same_weights(LanguageModel(**SMALL).fit(TEXT, run_dir=run, resume=True), LanguageModel.load(run))
    assert (run / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("tokenizer.json", {"unit": "word", "tokens": ["<eos>", "<unk>", "a"]}, "of another unit"),
        ("tokenizer.json", {"unit": "char", "tokens": ["\n", "<unk>", "a"]}, "does not fit config.json"),
        ("tokenizer.json", {"unit": "char", "tokens": 3}, "is damaged"),
        ("config.json", {"task": "classify"}, "another task"),
    ],
)
def test_damaged_runs_are_refused(run, file, change, said):
    import hashlib

    config = read_json(run / "config.json")
    write_json(run / file, (config if file == "config.json" else {}) | change)
    if file == "tokenizer.json":
        data = (run / file).read_bytes()
        config["files"][file] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        write_json(run / "config.json", config)
    with pytest.raises(RunFolderError, match=said):
        LanguageModel.load(run)


@pytest.mark.parametrize(
    "settings",
    [
        {"embedding_size": 10**15},
        {"hidden_size": [1] * 100},
        {"num_layers": 10**9},
        {"tied": "yes"},
        {"unit": ["char"]},
        {"dropout": "much"},
        {"chunk": None},
        {"surprise": 1},
    ],
    ids=str,
)
def test_settings_of_strangers_are_refused(run, settings):
    config = read_json(run / "config.json")
    write_json(run / "config.json", config | {"settings": config["settings"] | settings})
    with pytest.raises(RunFolderError):
        LanguageModel.load(run)


def test_a_record_of_test_text_goes_into_metrics_and_report(run):
    figures = LanguageModel.load(run).record(run, "test", TEXT[:200])
    metrics = read_json(run / "metrics.json")
    assert metrics["test"] == figures
    assert {"history", "best_epoch", "held out"} <= metrics.keys()
    assert "test perplexity" in (run / "report.html").read_text()
