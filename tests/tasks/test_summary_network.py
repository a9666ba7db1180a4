"""The network of summaries: probabilities, copying, and the same scores whole, word by word, and batched."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import recurra
from recurra.data import WrittenWords
from recurra.data.written_words import BEGIN_ID, END_ID, SPECIAL, UNK_ID
from recurra.engine import requests
from recurra.kernels.cpu import native
from recurra.tasks.beam import beam_search
from recurra.tasks.summary_network import SummaryNetwork, Writing
from recurra.tasks.summary_rows import PairRows, likelihood, read_source, target_ids, text_of

WORDS = WrittenWords([*SPECIAL, *"the cat sat on a mat .".split()])
SOURCES = ["the cat sat on Tom", "a dog and a bee see a dog", "mat"]
TARGETS = ["cat on Tom", "bee , dog", "a mat"]
OPTIONS = {"cell": "lstm", "hidden_size": 5, "embedding_size": 4}


def network(seed=0, words=WORDS, **options):
    torch.manual_seed(seed)
    made = SummaryNetwork(len(words), **OPTIONS | options).double().eval()
    with torch.no_grad():  # so that probabilities are far from even, and every part counts
        for weight in made.parameters():
            weight.mul_(3)
    return made


def rows(sources=SOURCES, targets=TARGETS):
    reads = [read_source(WORDS, source, 20) for source in sources]
    ids = [target_ids(WORDS, t, read, 20) for t, read in zip(targets, reads, strict=True)]
    return PairRows(reads, ids, len(WORDS))


KINDS = pytest.mark.parametrize(
    "options",
    [
        {},
        {"cell": "gru", "attention": "additive"},
        {"copying": False},
        {"cell": "lstmp", "num_layers": 2},
        {"input_feeding": True},
        {"input_feeding": True, "cell": "gru", "attention": "additive", "copying": False},
    ],
    ids=str,
)
FEEDING = pytest.mark.parametrize("options", [{}, {"input_feeding": True}], ids=str)


def test_ids_of_what_is_not_in_the_vocabulary():
    read = read_source(WORDS, "a dog, a bee; Dog dog", 20)
    V = len(WORDS)
    assert read.unknown == ["dog", "￭,", "bee", "￭;", "Dog"]
    assert read.ids.tolist() == [8, V, V + 1, 8, V + 2, V + 3, V + 4, V]
    ids = target_ids(WORDS, "the dog ate", read, 20)
    assert ids.tolist() == [4, V, UNK_ID, END_ID]
    assert text_of(WORDS, ids[:2], read) == "the dog"
    assert target_ids(WORDS, "the dog ate", read, 2).tolist() == [4, V]
    small = WrittenWords([*SPECIAL, "dog"], lowercase=True)
    assert read_source(small, "DOG Bee bee", 20).ids.tolist() == [4, 5, 5]
    assert read_source(WORDS, "[UNK] [END]", 20).unknown == ["[￭", "UNK", "￭]", "END"]


def test_batches_are_padded_and_begin():
    batch = rows()[[2, 0]]
    assert batch.source.lengths.tolist() == [1, 5]
    assert batch.source.unknown == 1
    assert batch.source.tokens.tolist() == [[9, 0, 0, 0, 0], [4, 5, 6, 7, 1]]
    assert batch.source.extended[1].tolist() == [4, 5, 6, 7, 11]
    assert batch.words.tolist() == [[BEGIN_ID, 8, 9, 3], [BEGIN_ID, 5, 7, 1]]
    assert batch.targets.tolist() == [[8, 9, 3, 0], [5, 7, 11, 3]]


@KINDS
def test_probabilities_sum_to_one_and_agree_with_those_of_the_targets(options):
    made, batch = network(**options), rows()[[0, 1, 2]]
    frames = made(batch.source, batch.words)
    every = made.log_probabilities(frames, batch.source)
    assert every.shape == (3, 4, len(WORDS) + 4)
    torch.testing.assert_close(every.exp().sum(-1), torch.ones(3, 4).double(), rtol=1e-9, atol=1e-9)
    found, copied, even = made.log_likelihood(frames, batch.source, batch.targets)
    valid = batch.targets != 0
    expected = every.gather(2, batch.targets.unsqueeze(2)).squeeze(2)[valid]
    if made.gate is None:
        known = batch.targets[valid] < len(WORDS)
        torch.testing.assert_close(found[known], expected[known])
    else:
        torch.testing.assert_close(found, expected)
    assert (copied <= found + 1e-12).all()
    assert even.shape == found.shape


@given(
    st.integers(0, 10_000),
    st.lists(st.lists(st.sampled_from("the cat dog bee Tom .".split()), min_size=1), min_size=1, max_size=4),
)
@settings(max_examples=25)
def test_copying_is_a_distribution_over_the_words_of_its_own_source(seed, sources):
    made = network(seed)
    batch = rows([" ".join(s) for s in sources], ["the"] * len(sources))[[*range(len(sources))]]
    frames = made(batch.source, batch.words)
    torch.testing.assert_close(frames.copied.sum(-1), torch.ones_like(frames.gate))
    every = made.log_probabilities(frames, batch.source).exp()
    torch.testing.assert_close(every.sum(-1), torch.ones_like(frames.gate))
    for row in range(len(sources)):
        own = batch.source.extended[row][batch.source.extended[row] >= len(WORDS)].unique() - len(WORDS)
        others = torch.ones(batch.source.unknown, dtype=torch.bool).index_fill(0, own, False)
        assert (every[row, :, len(WORDS) :][:, others] <= 1e-29).all()


@KINDS
def test_word_by_word_is_all_at_once(options):
    made, batch = network(**options), rows()[[0, 1, 2]]
    with torch.inference_mode():
        whole = made.log_probabilities(made(batch.source, batch.words), batch.source)
        writing = Writing(made, batch.source, 2)
        for t in range(batch.words.shape[1]):
            found = writing(torch.stack([batch.words[:, t], batch.words[:, t]], 1))
            for hypothesis in (0, 1):
                rest = [END_ID, *range(END_ID + 1, whole.shape[2])]
                torch.testing.assert_close(found[:, hypothesis, rest], whole[:, t, rest])
            assert found[..., [0, UNK_ID, BEGIN_ID]].isinf().all()


@FEEDING
def test_hypotheses_are_reordered_and_sources_leave(options):
    made, batch = network(**options), rows()[[0, 1, 2]]
    with torch.inference_mode():
        writing = Writing(made, batch.source, 2)
        writing(torch.full((3, 2), BEGIN_ID))
        writing(torch.tensor([[4, 5], [6, 7], [8, 9]]))
        writing.select(torch.tensor([2, 0]), torch.tensor([[1, 1], [0, 1]]))
        found = writing(torch.tensor([[4, 5], [6, 7]]))
        for row, hypothesis, told in [(0, 0, [9, 4]), (0, 1, [9, 5]), (1, 0, [4, 6]), (1, 1, [5, 7])]:
            one = rows()[[[2, 0][row]]]
            words = torch.tensor([[BEGIN_ID, *told]])
            alone = made.log_probabilities(made(one.source, words), one.source)[0, -1]
            torch.testing.assert_close(found[row, hypothesis, 3 : len(WORDS)], alone[3 : len(WORDS)])


@pytest.mark.skipif(native() is None, reason="built without the native machine")
@pytest.mark.parametrize(("weights", "bound"), [("bfloat16", 0.02), ("int8", 0.05)])
@FEEDING
def test_a_search_reads_weights_in_the_bits_that_the_options_say(options, weights, bound):
    made, source = network(**options).float(), rows()[[0, 1, 2]].source
    found = {}
    for bits in ("float", weights):
        with torch.inference_mode(), recurra.options(weights=bits), requests() as seen:
            writing = Writing(made, source, 2)
            steps = [writing(torch.full((3, 2), word)) for word in (BEGIN_ID, 4, 5)]
        layers = [layer for stream in writing.streams for layer in stream.layers]
        assert {layer.weights for layer in layers} == {request.weights for request in seen} == {bits}
        found[bits] = torch.stack(steps)[..., END_ID : len(WORDS)].exp()
    error = (found[weights] - found["float"]).norm() / found["float"].norm()
    assert 1e-5 < error < bound


@KINDS
def test_scores_of_a_search_are_those_of_its_words(options):
    made, table = network(**options), rows()
    with torch.inference_mode():
        batch = table[[0, 1, 2]]
        found = beam_search(Writing(made, batch.source, 3), 3, 3, max_length=5)
        for row, hypotheses in enumerate(found):
            one = table[[row]]
            assert [one.score for one in hypotheses] == sorted((one.score for one in hypotheses), reverse=True)
            for words, score in hypotheses:
                ids = [*words, END_ID] if len(words) < 5 else [*words]
                told = torch.tensor([[BEGIN_ID, *ids[:-1]]])
                frames = made(one.source, told.where(told < len(WORDS), UNK_ID))
                total = made.log_probabilities(frames, one.source)[0].gather(1, torch.tensor(ids).unsqueeze(1)).sum()
                assert score == pytest.approx(total.item(), rel=1e-6)


@KINDS
def test_a_beam_that_holds_everything_finds_the_best_there_is(options):
    words, longest = WrittenWords([*SPECIAL, "a", "b"]), 4
    made = network(words=words, **options)
    table = PairRows([read_source(words, source, 20) for source in ("a b b", "b")], None, len(words))
    every = [told for T in range(longest + 1) for told in itertools.product((4, 5), repeat=T)]
    with torch.inference_mode():
        source = table[[0, 1]].source
        found = beam_search(Writing(made, source, 16), 2, 16, max_length=longest)
        for row, hypotheses in enumerate(found):
            one = table[[row]].source
            total = {}
            for told in every:
                ids = [*told, END_ID][:longest]
                frames = made(one, torch.tensor([[BEGIN_ID, *ids[:-1]]]))
                each = made.log_probabilities(frames, one)[0].gather(1, torch.tensor(ids).unsqueeze(1))
                total[told] = each.sum().item()
            assert hypotheses[0].words == max(total, key=total.get)
            assert all(score == pytest.approx(total[words], rel=1e-6) for words, score in hypotheses)


@FEEDING
def test_what_was_attended_to_is_read_a_frame_later_and_never_before(options):
    made, batch = network(**options), rows()[[1]]
    words, output = torch.tensor([[BEGIN_ID, 4, 5, 6]]), made.output.bias
    first = made(batch.source, words).hidden
    with torch.no_grad():
        output += 1.0
    moved = made(batch.source, words).hidden - 1 - first
    assert moved[:, 0].abs().max() < 1e-12
    assert (moved[:, 1:].abs().amax(-1) > 1e-3).all() == bool(options)


@FEEDING
def test_every_weight_is_trained_and_padding_is_not_read(options):
    made = network(**options, dropout=0.1, embedding_dropout=0.1, word_dropout=0.2).train()
    batch = rows()[[0, 1, 2]]
    step = likelihood(made, batch, smoothing=0.1)
    assert step.size == 4 + 4 + 3
    step.loss.backward()
    assert {name for name, weight in made.named_parameters() if weight.grad is None or not weight.grad.any()} == set()
    made.eval()
    alone = [likelihood(made, rows()[[i]]) for i in range(3)]
    together = likelihood(made, batch)
    assert together.loss.item() == pytest.approx(sum(s.loss.item() * s.size for s in alone) / 11, rel=1e-9)
