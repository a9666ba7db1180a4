"""Searches on a scorer whose every probability is known: against all there is, greedy, blocked, sampled."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurra.data.written_words import BEGIN_ID, END_ID
from recurra.tasks.beam import beam_search, forbid_repeats, length_penalty, sample

W, LONGEST = 6, 4  # END, 4 and 5 can be written


class Table:
    """A scorer whose probabilities are a function of everything written so far, in no order."""

    def __init__(self, sources, hypotheses, seed=0):
        self.seed = seed
        self.sources = list(range(sources))
        self.told = [[()] * hypotheses for _ in range(sources)]

    def after(self, source, told):
        # From the numbers alone, so that no state can be wrong unseen.
        generator = torch.Generator().manual_seed(hash((self.seed, source, told)) % 2**31)
        scores = 2 * torch.randn(W, generator=generator)
        scores[:END_ID] = -torch.inf
        return scores.log_softmax(0)

    def __call__(self, words):
        rows = zip(self.sources, self.told, words.tolist(), strict=True)
        self.told = [[(*one, word) for one, word in zip(told, new, strict=True)] for _, told, new in rows]
        return torch.stack(
            [
                torch.stack([self.after(source, one[1:]) for one in told])
                for source, told in zip(self.sources, self.told, strict=True)
            ]
        )

    def select(self, sources, parents):
        self.told = [[self.told[s][p] for p in row] for s, row in zip(sources.tolist(), parents.tolist(), strict=True)]
        self.sources = [self.sources[s] for s in sources.tolist()]


def every_hypothesis(table, source, alpha):
    """All that could be written, with its score, the best first."""
    found = []
    for length in range(LONGEST + 1):
        for told in itertools.product((4, 5), repeat=length):
            total = sum(table.after(source, told[:i])[word].item() for i, word in enumerate(told))
            if length < LONGEST:
                total += table.after(source, told)[END_ID].item()
            found.append((told, total / length_penalty(min(length + 1, LONGEST), alpha)))
    return sorted(found, key=lambda one: -one[1])


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.5])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_that_holds_everything_finds_the_best_there_is(alpha, seed):
    found = beam_search(Table(3, 40, seed), 3, 40, max_length=LONGEST, alpha=alpha)
    for source, hypotheses in enumerate(found):
        told, score = every_hypothesis(Table(3, 1, seed), source, alpha)[0]
        assert hypotheses[0].words == told
        assert hypotheses[0].score == pytest.approx(score, rel=1e-5)
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)


@pytest.mark.parametrize("beam", [1, 2, 3])
def test_scores_are_those_of_the_words(beam):
    for seed in range(5):
        for source, hypotheses in enumerate(beam_search(Table(2, beam, seed), 2, beam, max_length=LONGEST, alpha=0.6)):
            known = dict(every_hypothesis(Table(2, 1, seed), source, 0.6))
            assert len({h.words for h in hypotheses}) == len(hypotheses) <= beam
            for words, score in hypotheses:
                assert score == pytest.approx(known[words], rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_beam_of_one_is_greedy(alpha):
    for seed in range(10):
        table = Table(4, 1, seed)
        for source, ((words, _),) in enumerate(beam_search(table, 4, 1, max_length=LONGEST, alpha=alpha)):
            told = ()
            while len(told) < LONGEST and (word := table.after(source, told).argmax().item()) != END_ID:
                told += (word,)
            assert words == told


def test_a_source_finds_the_same_beside_any_others():
    together = beam_search(Table(5, 3), 5, 3, max_length=LONGEST)
    alone = Table(1, 3)
    alone.sources = [4]
    assert beam_search(alone, 1, 3, max_length=LONGEST) == [together[4]]


@given(st.integers(1, 4), st.integers(0, 1000), st.integers(1, 3), st.booleans())
def test_what_is_blocked_never_comes_twice(size, seed, beam, drawn):
    if drawn:
        found = [[one] for one in sample(Table(2, 1, seed), 2, max_length=12, seed=seed, no_repeat=size)]
    else:
        found = beam_search(Table(2, beam, seed), 2, beam, max_length=12, no_repeat=size, alpha=2.0)
    for words, _ in itertools.chain(*found):
        runs = [words[i : i + size] for i in range(len(words) - size + 1)]
        assert len(set(runs)) == len(runs)


def test_blocking_leaves_other_words_as_they_are():
    scores = torch.randn(1, 2, 9)
    words = torch.tensor([[[4, 5, 4], [6, 6, 6]]])
    found = forbid_repeats(scores, words, 2)
    assert found.isinf().nonzero().tolist() == [[0, 0, 5], [0, 1, 6]]
    assert torch.equal(found[~found.isinf()], scores[~found.isinf()])
    assert forbid_repeats(scores, words, 0) is forbid_repeats(scores, words, 4) is scores


def test_samples_follow_their_seed_and_their_probabilities():
    draw = lambda seed, **options: sample(Table(3, 1), 3, max_length=LONGEST, seed=seed, **options)
    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(10)}) > 2
    greedy = [one[0].words for one in beam_search(Table(3, 1), 3, 1, max_length=LONGEST)]
    for temperature in (1e-4, 1e-38, 1e-310):
        assert [h.words for h in draw(0, temperature=temperature)] == greedy
    count = 400
    table = Table(1, 1)
    firsts = [sample(Table(1, 1), 1, max_length=1, seed=seed)[0].words for seed in range(count)]
    probability = table.after(0, ()).exp()[END_ID].item()
    assert firsts.count(()) / count == pytest.approx(probability, abs=4 * (probability / count) ** 0.5)
    assert BEGIN_ID not in {word for words in firsts for word in words}
