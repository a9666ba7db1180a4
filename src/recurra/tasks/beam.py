"""Searches for what to write: beam search, of which a beam of one is greedy, and sampling.

They know no network: only a function that scores what may follow, and one that reorders its state.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from recurra.data.written_words import BEGIN_ID, END_ID
from recurra.tasks.sampling import tempered


class Scorer(Protocol):
    """What a search asks: its state is of B sources with K hypotheses each."""

    def __call__(self, words: Tensor) -> Tensor:
        """Log probabilities ``(B, K, W)`` of what follows `words` ``(B, K)``; -inf for what is never written."""

    def select(self, sources: Tensor, parents: Tensor) -> None:
        """Go on with sources ``(B',)``, and with the hypotheses `parents` ``(B', K)`` of each."""


class Hypothesis(NamedTuple):
    """What was written, without the end, and its log probability over its length penalty."""

    words: tuple[int, ...]
    score: float


def length_penalty(length: int, alpha: float) -> float:
    """What a log probability is divided by (Wu et al., 2016, eq. 14); 1 at alpha 0.

    Example:
        >>> length_penalty(1, 0.6), length_penalty(7, 1.0)
        (1.0, 2.0)
    """
    return float(((5 + length) / 6) ** alpha)


def beam_search(
    score: Scorer,
    sources: int,
    beam: int,
    *,
    max_length: int,
    min_length: int = 0,
    alpha: float = 0.0,
    no_repeat: int = 0,
) -> list[list[Hypothesis]]:
    """The `beam` best hypotheses of each source, the best first.

    At each step the best continuations of all hypotheses of a source go on. A source is done when as many as `beam`
    have ended, or when no other can become better than the best that has.

    Args:
        score: the decoder. sources: B. beam: K; 1 is greedy search.
        max_length: what is longer is cut off there, and counts without an end.
        min_length: write no less. alpha: of :func:`length_penalty`; larger prefers longer.
        no_repeat: write no run of so many words twice; 0: anything goes.

    Returns:
        A list of at least one and at most K hypotheses for each source.
    """
    active = torch.arange(sources)  # which source a row is of
    words = torch.full((sources, beam, 1), BEGIN_ID)
    # All hypotheses of a source begin the same, so only one of them counts at first.
    total = torch.full((sources, beam), -torch.inf)
    total[:, 0] = 0
    ended: list[list[Hypothesis]] = [[] for _ in range(sources)]
    for length in range(1, max_length + 1):
        found = forbid_repeats(score(words[..., -1]).cpu(), words[..., 1:], no_repeat)
        if length <= min_length:
            found[..., END_ID] = -torch.inf
        # Of K hypotheses K at most end here, so twice as many leave K that go on.
        best, at = (total.unsqueeze(2) + found).flatten(1).topk(2 * beam)
        parents, following = at // found.shape[2], at % found.shape[2]
        ends = following == END_ID
        for row, rank in (ends[:, :beam] & best[:, :beam].isfinite()).nonzero().tolist():
            told = words[row, parents[row, rank], 1:].tolist()
            ended[active[row]].append(Hypothesis((*told,), best[row, rank].item() / length_penalty(length, alpha)))
        total, kept = best.masked_fill(ends, -torch.inf).topk(beam)
        reach = (total[:, 0] / length_penalty(max_length, alpha)).tolist()  # the most that one of them can become
        rows = torch.tensor(
            [row for row, source in enumerate(active.tolist()) if not _is_done(ended[source], beam, reach[row])],
            dtype=torch.int64,
        )
        active, total = active[rows], total[rows]
        parents, following = parents.gather(1, kept)[rows], following.gather(1, kept)[rows]
        words = torch.cat([_of_parents(words[rows], parents), following.unsqueeze(2)], 2)
        if not len(rows):
            break
        if length < max_length:
            score.select(rows, parents)
    for source, told, sums in zip(active.tolist(), words[..., 1:].tolist(), total.tolist(), strict=True):
        ended[source] += [
            Hypothesis((*one,), value / length_penalty(max_length, alpha))
            for one, value in zip(told, sums, strict=True)
            if value > -torch.inf
        ]
    return [sorted(found, key=lambda one: -one.score)[:beam] for found in ended]


def sample(
    score: Scorer,
    sources: int,
    *,
    max_length: int,
    seed: int,
    min_length: int = 0,
    temperature: float = 1.0,
    no_repeat: int = 0,
) -> list[Hypothesis]:
    """One hypothesis of each source, drawn word by word.

    Args:
        score: the decoder, with one hypothesis of each source. sources: B.
        max_length, min_length, no_repeat: see :func:`beam_search`.
        seed: the same gives the same words for the same batch of sources.
        temperature: below 1 likely words become likelier, above it less so; towards 0 this is greedy search.
    """
    generator = torch.Generator().manual_seed(seed)
    active, words, total = torch.arange(sources), torch.full((sources, 1, 1), BEGIN_ID), torch.zeros(sources)
    ended: dict[int, Hypothesis] = {}
    for length in range(1, max_length + 1):
        found = forbid_repeats(score(words[..., -1]).cpu(), words[..., 1:], no_repeat)[:, 0]
        if length <= min_length:
            found[..., END_ID] = -torch.inf
        drawn = tempered(found, temperature).multinomial(1, generator=generator)
        total = total + found.gather(1, drawn)[:, 0]
        ends = drawn[:, 0] == END_ID
        words = torch.cat([words, drawn.unsqueeze(2)], 2)
        for row in (ends if length < max_length else torch.ones_like(ends)).nonzero()[:, 0].tolist():
            told = [word for word in words[row, 0, 1:].tolist() if word != END_ID]
            ended[int(active[row])] = Hypothesis((*told,), float(total[row]))
        rows = (~ends).nonzero()[:, 0]
        active, words, total = active[rows], words[rows], total[rows]
        if not len(rows):
            break
        score.select(rows, torch.zeros(len(rows), 1, dtype=torch.int64))
    return [ended[source] for source in range(sources)]


def forbid_repeats(found: Tensor, words: Tensor, size: int) -> Tensor:
    """Log probabilities with -inf for each word that would end a run of `size` words that is there already.

    Args:
        found: ``(B, K, W)``. words: ``(B, K, T)`` written so far. size: 0 leaves `found` as it is.

    Example:
        >>> found = forbid_repeats(torch.zeros(1, 1, 9), torch.tensor([[[5, 6, 7, 5, 6]]]), size=3)
        >>> found.isinf().nonzero().tolist()
        [[0, 0, 7]]
    """
    T = words.shape[2]
    if not size or size > T:
        return found
    runs = words.unfold(2, size, 1)  # (B, K, T - size + 1, size)
    last = words[..., T - size + 1 :].unsqueeze(2)
    b, k, t = (runs[..., :-1] == last).all(-1).nonzero(as_tuple=True)
    return found.index_put((b, k, runs[b, k, t, -1]), found.new_tensor(-torch.inf))


def _of_parents(words: Tensor, parents: Tensor) -> Tensor:
    return words.gather(1, parents.unsqueeze(2).expand(-1, -1, words.shape[2]))


def _is_done(ended: list[Hypothesis], beam: int, reach: float) -> bool:
    return len(ended) >= beam or (bool(ended) and max(one.score for one in ended) >= reach)
