"""Source words to target words: an encoder, a decoder with attention, and copying from the source.

Without input feeding no layer reads what the output said a frame before, so all frames of a target are two scans and
two attentions, whatever its length; what the decoder must know of the past stands in its second layer, which reads what
the first one found. With it, nothing of the decoder but word vectors can be hoisted before the loop over frames, and
nothing but the scores of words sunk behind it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recurra.data.written_words import BEGIN_ID, PAD_ID, UNK_ID
from recurra.engine import options
from recurra.layers import Attention, Recurrent, Stream
from recurra.tasks.text_network import INITIAL_DEVIATION

LEAST = 1e-30  # a probability that log takes; float32 still has it
NEVER = (PAD_ID, UNK_ID, BEGIN_ID)  # ids that are not written: they are no words


class Source(NamedTuple):
    """Padded sources.

    Attributes:
        tokens: ``(B, S)`` ids below V, the unknown one for a word that is not in the vocabulary.
        extended: ``(B, S)`` the same, but V, V + 1, … for the unknown words of a source in the order they come in.
        lengths: ``(B,)``. unknown: the most such words that a source of the batch has.
    """

    tokens: Tensor
    extended: Tensor
    lengths: Tensor
    unknown: int


class Memory(NamedTuple):
    """What the encoder made of sources: `states` ``(B, S, E)``, their keys in both attentions, `summary` ``(B, D)``."""

    source: Source
    states: Tensor
    look: Tensor
    find: Tensor
    summary: Tensor


class Frames(NamedTuple):
    """What the decoder has to say at each frame.

    Attributes:
        hidden: ``(B, T, D)``, whose products with the word vectors are the scores of words. gate: ``(B, T)``, the logit
            of writing a word of the vocabulary (p_gen); None without copying. copied: ``(B, T, S)``, where from the
            source otherwise; rows sum to one.
        attentional: ``(B, T, D)``, what input feeding gives the next frame (Luong et al., 2015, eq. 5); None without.
    """

    hidden: Tensor
    gate: Tensor | None
    copied: Tensor
    attentional: Tensor | None = None


Run = Callable[[Tensor], Tensor]  # (B, T, width) -> (B, T, width): a recurrent layer


class SummaryNetwork(nn.Module):
    r"""An encoder and a decoder with attention that copies (pointer-generator; See et al., 2017, eq. 8 and 9).

    .. math::
        P(w) = p_{gen} \, P_{vocab}(w) + (1 - p_{gen}) \sum_{s : w_s = w} a_s

    The words of one source that are not in the vocabulary extend it, so they too can be written. Word vectors are
    those of sources, targets and of the scores (Press & Wolf, 2017).

    Args:
        vocabulary: V, the number of word ids.
        cell: of encoder and decoder, as :class:`~recurra.Recurrent` takes it.
        hidden_size, num_layers: of the encoder, which reads from both ends; the decoder has two layers of the last H.
        embedding_size: D, the width of a word's vector.
        attention: see :class:`~recurra.layers.Attention`. copying: whether source words can be copied.
        input_feeding: whether a frame of the decoder also reads the attentional vector of the frame before.
        dropout: between layers and before the scores. embedding_dropout: on word vectors.
        word_dropout: the part of words that training hides from the network; they can still be copied.

    Example:
        >>> network = SummaryNetwork(20, cell="gru", hidden_size=4, embedding_size=3).eval()
        >>> tokens = torch.tensor([[5, 7, 1], [9, 2, 0]])
        >>> source = Source(tokens, torch.tensor([[5, 7, 20], [9, 2, 0]]), torch.tensor([3, 2]), unknown=1)
        >>> frames = network(source, torch.tensor([[2, 7], [2, 9]]))
        >>> network.log_probabilities(frames, source).shape
        torch.Size([2, 2, 21])
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        cell: Any,
        hidden_size: Any,
        embedding_size: int,
        num_layers: int | None = None,
        attention: str = "multiplicative",
        copying: bool = True,
        input_feeding: bool = False,
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        word_dropout: float = 0.0,
    ):
        super().__init__()
        D = embedding_size
        self.embedding = nn.Embedding(vocabulary, D)
        nn.init.normal_(self.embedding.weight, std=INITIAL_DEVIATION)
        self.encoder = Recurrent(cell, D, hidden_size, num_layers, bidirectional=True, dropout=dropout)
        E, H = self.encoder.output_size, self.encoder.widths[-1]
        self.summary = nn.Linear(E, D)
        self.input_feeding = input_feeding
        self.reader = Recurrent(cell, (3 if input_feeding else 2) * D, H)
        self.look = Attention(self.reader.output_size, E, attention)
        self.writer = Recurrent(cell, self.reader.output_size + E, H)
        self.find = Attention(self.writer.output_size, E, attention)
        width = self.reader.output_size + self.writer.output_size + E
        self.output = nn.Linear(width, D)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.gate = nn.Linear(width + D, 1) if copying else None
        self.dropout, self.embedding_dropout = nn.Dropout(dropout), nn.Dropout(embedding_dropout)
        self.word_dropout = word_dropout

    @property
    def vocabulary(self) -> int:
        """V, the number of word ids."""
        return self.embedding.num_embeddings

    def forward(self, source: Source, words: Tensor) -> Frames:
        """What the decoder says at each frame, given the words before it.

        Args:
            source: what is read.
            words: ``(B, T)`` the target from its beginning on, ids below V; frame t may know words 0 to t.
        """
        memory, reader, writer = self.read(source), _carried(self.reader), _carried(self.writer)
        pieces: list[Frames] = []
        for piece in words.split(1 if self.input_feeding else words.shape[1], 1):
            pieces.append(self.write(memory, piece, reader, writer, pieces[-1].attentional if pieces else None))
        parts = (None if of[0] is None else torch.cat(of, 1) for of in zip(*pieces, strict=True))
        return Frames(*parts)  # type: ignore[arg-type]

    def read(self, source: Source) -> Memory:
        """Run the encoder over sources."""
        with options(check_nan=False):  # words hold no NaN: it would be of the weights, and the loss then tells
            states, _ = self.encoder(self._vectors(source.tokens), lengths=source.lengths)
        mean = states.sum(1) / source.lengths.unsqueeze(1)  # outputs past the lengths are exactly zero
        return Memory(source, states, self.look.keys(states), self.find.keys(states), torch.tanh(self.summary(mean)))

    def write(self, memory: Memory, words: Tensor, reader: Run, writer: Run, fed: Tensor | None) -> Frames:
        """Run the decoder.

        Args:
            memory: of B sources. words: ``(B, T)`` ids below V.
            reader, writer: run the decoder's layers; frames are frames of time in training, hypotheses in a search.
            fed: the attentional vectors of the frames before; None at the first, or without input feeding.
        """
        x = self._vectors(words)
        before = [torch.zeros_like(x) if fed is None else fed] if self.input_feeding else []
        with options(check_nan=False):
            asked = reader(torch.cat([x, memory.summary.unsqueeze(1).expand_as(x), *before], -1))
            context, _ = self.look(asked, memory.states, memory.source.lengths, memory.look)
            written = writer(torch.cat([self.dropout(asked), context], -1))
        found, copied = self.find(written, memory.states, memory.source.lengths, memory.find)
        features = torch.cat([asked, written, found], -1)
        gate = None if self.gate is None else self.gate(torch.cat([features, x], -1)).squeeze(-1)
        hidden = self.output(self.dropout(features))
        return Frames(hidden, gate, copied, hidden.tanh() if self.input_feeding else None)

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores of the vocabulary ``(..., V)`` before the softmax, of ``hidden (..., D)``."""
        return nn.functional.linear(hidden, self.embedding.weight, self.bias)

    def log_probabilities(self, frames: Frames, source: Source) -> Tensor:
        """The logarithms ``(B, T, V + unknown)`` of the probabilities of all words, those of the sources among them."""
        scores = self.scores(frames.hidden).log_softmax(-1)
        if frames.gate is not None:
            scores = scores + nn.functional.logsigmoid(frames.gate).unsqueeze(-1)
        every = nn.functional.pad(scores, (0, source.unknown), value=-torch.inf)
        if frames.gate is None:
            return every
        # Only words of the source differ: at all places of one of them stands the same, their sum.
        same = source.extended.unsqueeze(1) == source.extended.unsqueeze(2)
        mass = (frames.copied @ same.to(frames.copied)).clamp_min(LEAST).log()
        copied = nn.functional.logsigmoid(-frames.gate).unsqueeze(-1) + mass
        at = source.extended.unsqueeze(1).expand_as(copied)
        return every.scatter(2, at, torch.logaddexp(every.gather(2, at), copied))

    def log_likelihood(self, frames: Frames, source: Source, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The logarithms of the probabilities of `targets` alone, without those of all words.

        Args:
            frames: of T frames. targets: ``(B, T)`` ids below V + unknown, 0 past a target's end.

        Returns:
            Of the N valid frames, in order: ``(N,)`` log P; ``(N,)`` log of its part that was copied; ``(N,)`` the mean
            of log P_vocab over the vocabulary, for label smoothing.
        """
        valid = targets != PAD_ID
        wanted, scores = targets[valid], self.scores(frames.hidden[valid])
        total = scores.logsumexp(-1)
        known = wanted < self.vocabulary
        chosen = scores.gather(1, wanted.where(known, UNK_ID).unsqueeze(1)).squeeze(1) - total
        even = scores.mean(-1) - total
        if frames.gate is None:
            return chosen, torch.full_like(chosen, -torch.inf), even
        gate = frames.gate[valid]
        same = source.extended.unsqueeze(1) == targets.unsqueeze(2)
        mass = (frames.copied * same).sum(-1)[valid]
        written = nn.functional.logsigmoid(gate) + chosen.masked_fill(~known, -torch.inf)
        copied = nn.functional.logsigmoid(-gate) + mass.clamp_min(LEAST).log()
        return torch.logaddexp(written, copied), copied, even

    def _vectors(self, words: Tensor) -> Tensor:
        if self.training and self.word_dropout:
            hidden = torch.rand(words.shape, device=words.device) < self.word_dropout
            words = words.masked_fill(hidden & (words != BEGIN_ID), UNK_ID)
        return self.embedding_dropout(self.embedding(words))  # type: ignore[no-any-return]


def _carried(layer: Recurrent) -> Run:
    """Runs a layer over pieces of time, each from where the one before ended."""
    state: Any = None

    def run(x: Tensor) -> Tensor:
        nonlocal state
        y, state = layer(x, state)
        return y  # type: ignore[no-any-return]

    return run


class Writing:
    """A decoder that writes B × K hypotheses word by word: what a search scores with.

    Args:
        network: in evaluation. source: B sources. hypotheses: K of each.
    """

    def __init__(self, network: SummaryNetwork, source: Source, hypotheses: int):
        self.network, self.K = network, hypotheses
        self.memory = network.read(source)
        count = len(source.lengths) * hypotheses
        self.streams = [network.reader.stream(batch=count), network.writer.stream(batch=count)]
        self.fed: Tensor | None = None
        self.forbidden = torch.tensor(NEVER, device=source.tokens.device)

    def __call__(self, words: Tensor) -> Tensor:
        """Log probabilities ``(B, K, V + unknown)`` of what follows `words` ``(B, K)``, the last of each hypothesis."""
        words = words.to(self.forbidden.device)
        known = words.where(words < self.network.vocabulary, UNK_ID)
        reader, writer = map(self._push, self.streams)
        frames = self.network.write(self.memory, known, reader, writer, self.fed)
        self.fed = frames.attentional
        found = self.network.log_probabilities(frames, self.memory.source)
        return found.index_fill_(2, self.forbidden, -torch.inf)

    def select(self, sources: Tensor, parents: Tensor) -> None:
        """Go on with some sources, ``(B',)`` indices, and from the hypotheses `parents` ``(B', K)`` of each."""
        rows = (sources.unsqueeze(1) * self.K + parents).flatten()
        for stream in self.streams:
            stream.select(rows.tolist())
        if self.fed is not None:
            self.fed = self.fed[sources.unsqueeze(1), parents]
        if len(sources) < len(self.memory.states):
            source, *rest = self.memory
            kept = Source(source.tokens[sources], source.extended[sources], source.lengths[sources], source.unknown)
            self.memory = Memory(kept, *(part[sources] for part in rest))

    def _push(self, stream: Stream) -> Run:
        # The attention answers each hypothesis by itself, as it does frames of time.
        return lambda x: stream.push(x.flatten(0, 1)).view(*x.shape[:2], -1).clone()
