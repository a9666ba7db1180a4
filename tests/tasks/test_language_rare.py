"""What a language model seldom meets: learning while it reads, numbers of NumPy, and an epoch without a loss."""

import copy
import shutil

import numpy as np
import pytest
import torch
from sklearn.base import clone
from test_language import SMALL, TEXT
from torch import nn

from recurra.cells import LSTMCell, learned_state
from recurra.errors import DivergedError, OptionError
from recurra.layers.chunks import detached
from recurra.tasks import LanguageModel


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "lines"
    LanguageModel(**SMALL).fit(TEXT, run_dir=folder)
    return folder


@pytest.fixture
def fitted(finished):
    return LanguageModel.load(finished)


def test_dynamic_evaluation_learns_from_what_it_has_scored_alone(fitted):
    before = fitted.evaluate(TEXT)
    assert fitted.evaluate("zig " * 99, adapt=0.5)["perplexity"] < 0.8 * fitted.evaluate("zig " * 99)["perplexity"]
    assert fitted.evaluate(TEXT, adapt=0.5, chunk=len(TEXT)) == pytest.approx(before, rel=1e-5)
    assert fitted.evaluate(TEXT) == before
    network, state, nats = copy.deepcopy(fitted.network_).eval(), None, 0.0
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    ids = torch.from_numpy(fitted.tokenizer_.encode(TEXT[:40])).long()
    tokens = torch.cat([ids.new_tensor([fitted.tokenizer_.begin]), ids[:-1]])
    for x, y in zip(tokens.split(16), ids.split(16), strict=True):
        scores, state = network(x[None], state)
        state, loss = detached(state), nn.functional.cross_entropy(scores[0], y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), fitted.clip)
        optimizer.step()
        nats += loss.item() * len(y)
    assert fitted.evaluate(TEXT[:40], adapt=0.5, chunk=16)["nats_per_token"] == pytest.approx(nats / len(ids), rel=1e-4)
    with pytest.raises(OptionError, match="adapt must be a number at least 0"):
        fitted.evaluate(TEXT, adapt=-1)
    with pytest.raises(DivergedError, match=r"diverged while it learnt(.|\n)*adapt=1e\+38"):
        clone(fitted).set_params(clip=None)._adopt(fitted).evaluate(TEXT, adapt=1e38)


def test_dynamic_evaluation_leaves_alone_what_a_chunk_does_not_read():
    def began(D, H):
        return learned_state(LSTMCell(D, H))  # read by the first chunk alone

    model = LanguageModel(**SMALL | {"cell": began, "max_epochs": 1}).fit(TEXT)
    assert model.evaluate(TEXT, adapt=0.5)["perplexity"] < model.evaluate(TEXT)["perplexity"]


def test_numbers_of_numpy_are_numbers(fitted):
    plainly = [*fitted.generate("a", 5, top_k=3, top_p=0.5, temperature=0.5, seed=2)]
    given = {"top_k": np.int64(3), "top_p": np.float32(0.5), "temperature": np.float32(0.5), "seed": np.int32(2)}
    assert [*fitted.generate("a", np.int64(5), **given)] == plainly
    assert fitted.evaluate(TEXT, chunk=np.int64(64)) == fitted.evaluate(TEXT, chunk=64)


def test_a_report_of_an_epoch_without_a_loss(finished, tmp_path):
    model = LanguageModel.load(shutil.copytree(finished, tmp_path / "run"))
    model.history_[0]["valid_loss"] = None  # as JSON holds NaN
    assert model.record(tmp_path / "run", "test", TEXT)["tokens"] == len(TEXT)


def test_a_run_says_how_long_its_epochs_took(fitted):
    assert fitted.about_["seconds"] == pytest.approx(sum(epoch["seconds"] for epoch in fitted.history_), abs=0.06)
