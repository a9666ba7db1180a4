"""Pairs of texts as numbers, and their batches: with the unknown words of each source, which can be copied."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from recurra.data import LengthBucketSampler, WrittenWords, join_words
from recurra.data.written_words import BEGIN_ID, END_ID, SPECIAL, UNK_ID
from recurra.tasks.summary_network import Source, SummaryNetwork

if TYPE_CHECKING:
    from recurra.train.module import Step

Ids = np.ndarray[Any, np.dtype[np.int32]]


class Read(NamedTuple):
    """A source.

    Attributes:
        words: as they are written. ids: ``(S,)``, V, V + 1, … for the unknown words in the order they come in.
        unknown: these words, as they are first written; of a vocabulary of small letters, in such.
    """

    words: list[str]
    ids: Ids
    unknown: list[str]


class PairBatch(NamedTuple):
    """Padded pairs: `words` ``(B, T)``, targets from their beginning on; `targets` ``(B, T)``, what follows each."""

    source: Source
    words: Tensor
    targets: Tensor


def read_source(vocabulary: WrittenWords, text: str, most: int) -> Read:
    """The first `most` words of a text.

    Example:
        >>> known = WrittenWords(["[PAD]", "[UNK]", "[BEGIN]", "[END]", "see"])
        >>> read_source(known, "see Spot, see Spot", 9).ids.tolist()
        [4, 5, 6, 4, 5]
    """
    words = vocabulary.split(text, most)
    places: dict[str, int] = {}
    unknown: list[str] = []
    ids: list[int] = []
    for word in words:
        found = vocabulary.id(word)
        if found == UNK_ID:
            key = vocabulary.key(word)
            if key not in places:
                places[key] = len(vocabulary) + len(unknown)
                unknown.append(key)
            found = places[key]
        ids.append(found)
    return Read(words or [SPECIAL[UNK_ID]], np.array(ids or [UNK_ID], dtype=np.int32), unknown)


def target_ids(vocabulary: WrittenWords, text: str, read: Read, most: int) -> Ids:
    """The ids of the first `most` words of a target, and the end where that is its end; those of `read` extend them."""
    places = {vocabulary.key(word): len(vocabulary) + k for k, word in enumerate(read.unknown)}
    words = vocabulary.split(text)
    ids = [vocabulary.id(word) for word in words[:most]]
    ids = [places.get(vocabulary.key(word), UNK_ID) if i == UNK_ID else i for i, word in zip(ids, words, strict=False)]
    return np.array(ids if len(words) > most else [*ids, END_ID], dtype=np.int32)


def text_of(vocabulary: WrittenWords, ids: Sequence[int], read: Read) -> str:
    """The text of ids that a search wrote for a source."""
    return join_words(word_of(vocabulary, i, read) for i in ids)


def word_of(vocabulary: WrittenWords, i: int, read: Read) -> str:
    """The word of an id, one of the source's own among them."""
    return vocabulary.words[i] if i < len(vocabulary) else read.unknown[i - len(vocabulary)]


class PairRows(Dataset[PairBatch]):
    """Sources, and targets where there are some; indexed by a list of rows, it gives their padded batch."""

    def __init__(self, sources: Sequence[Read], targets: Sequence[Ids] | None, V: int):
        self.sources, self.V = sources, V
        self.targets = [np.zeros(1, dtype=np.int32)] * len(sources) if targets is None else targets

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, rows: list[int]) -> PairBatch:
        extended = _padded([self.sources[i].ids for i in rows])
        lengths = torch.tensor([len(self.sources[i].ids) for i in rows])
        unknown = max(len(self.sources[i].unknown) for i in rows)
        targets = _padded([self.targets[i] for i in rows])
        begin = torch.full((len(rows), 1), BEGIN_ID)
        words = torch.cat([begin, self._known(targets[:, :-1])], 1)
        return PairBatch(Source(self._known(extended), extended, lengths, unknown), words, targets)

    def _known(self, ids: Tensor) -> Tensor:
        return ids.masked_fill(ids >= self.V, UNK_ID)

    def sampler(self, batch_size: int, seed: int | None) -> LengthBucketSampler:
        """Batches of like length; without a seed in a fixed order."""
        lengths = [len(s.ids) + len(t) for s, t in zip(self.sources, self.targets, strict=True)]
        return LengthBucketSampler(lengths, batch_size, seed=seed or 0, shuffle=seed is not None)

    def batches(self, batch_size: int, seed: int | None) -> DataLoader[PairBatch]:
        """The same as a loader, for Lightning."""
        # Each pass draws one number; from torch's global generator that would move the dropout of a resumed run.
        return DataLoader(self, batch_size=None, sampler=self.sampler(batch_size, seed), generator=torch.Generator())


def _padded(rows: Sequence[Ids]) -> Tensor:
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), dtype=np.int64)
    ids[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(rows)
    return torch.from_numpy(ids)


def likelihood(network: Any, batch: PairBatch, *, smoothing: float = 0.0) -> "Step":
    """The objective: the mean of −log P over the words of targets and their ends.

    With `smoothing` ε, in training, ε of it is −log P_vocab averaged over the vocabulary (Szegedy et al., 2016).
    """
    from recurra.train.module import Step

    assert isinstance(network, SummaryNetwork)
    found, _, even = network.log_likelihood(network(batch.source, batch.words), batch.source, batch.targets)
    loss = -found.mean()
    if smoothing and network.training:
        loss = (1 - smoothing) * loss - smoothing * even.mean()
    return Step(loss, len(found), {})
