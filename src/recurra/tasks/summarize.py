"""Summaries, translations, headlines: texts from texts, by a network that reads, writes and copies."""

import functools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from recurra.data import WrittenWords, learn_words, stratified_split
from recurra.data.written_words import UNITS
from recurra.errors import DataError, EmptyTextError, OptionError, RunFolderError
from recurra.tasks.beam import Hypothesis, beam_search, sample
from recurra.tasks.bounds import require_network
from recurra.tasks.given import checked_texts, fingerprint
from recurra.tasks.summary_network import SummaryNetwork, Writing
from recurra.tasks.summary_rows import (
    PairBatch,
    PairRows,
    Read,
    likelihood,
    read_source,
    target_ids,
    text_of,
    word_of,
)
from recurra.tasks.trained import Job, Trained
from recurra.train import ranks
from recurra.train.files import write_atomically
from recurra.train.run_folder import RunFolder
from recurra.train.settings import FitSettings, plain, require_name, require_number, require_seed, require_whole
from recurra.train.untrusted import AGAIN, read_json

# The settings that SummaryNetwork takes by the same names.
NETWORK = [
    *("cell", "hidden_size", "num_layers", "embedding_size", "attention", "copying", "input_feeding"),
    *("dropout", "embedding_dropout", "word_dropout"),
]
SEARCH = ("beam", "length_penalty", "no_repeat", "max_length")
INFERENCE_BATCH = 32
MOST = {"beam": 1000, "max_length": 10_000, "max_target_tokens": 10_000}  # a stranger's run takes no more memory
REPORTED = 500  # held-out pairs that a training ends with: a search takes longer than a pass


class Attended(NamedTuple):
    """Where the words of a summary come from.

    Attributes:
        source, written: words, as they are read.
        weights: ``(T, S)``, the attention of each written word; rows sum to one.
        copied: ``(T,)``, the part of each word's probability that is copying.
    """

    source: list[str]
    written: list[str]
    weights: np.ndarray[Any, np.dtype[np.float32]]
    copied: np.ndarray[Any, np.dtype[np.float32]]


@dataclass(kw_only=True, eq=False, repr=False)
class Summarizer(Trained):
    """Learn to write a short text of a longer one, or a translation: whatever the pairs say.

    Args:
        cell: of encoder and decoder: a name (``recurra cells`` lists them), a :class:`~recurra.Cell` class, or a
            callable ``(D, H) -> Cell``.
        hidden_size: H, units of each direction of the encoder, and of the decoder: one number, or one a layer.
        num_layers: L, of the encoder; None where `hidden_size` gives one number a layer. The decoder has two.
        embedding_size: D, the width of a word's vector.
        attention: ``"multiplicative"`` or ``"additive"``. copying: whether words of a source can be copied.
        input_feeding: whether the decoder also reads the attentional vector of the frame before (Luong et al., 2015).
            All frames of a target are then no longer two scans and two attentions: the decoder runs frame by frame, in
            training too, since nothing of it but word vectors and scores can be hoisted before that loop or sunk
            behind it.
        unit: ``"word"``, or ``"subword"``, pieces of words by byte-pair encoding; then "words" below are pieces.
        vocab_size: V, at most so many words, of sources and targets together.
        min_count: a word that comes less often is unknown; it can still be copied.
        lowercase: read and write small letters.
        max_source_tokens: read the first so many words of a source. max_target_tokens: learn from the first so many of
            a target.
        dropout: between layers and before the scores. embedding_dropout: on word vectors.
        word_dropout: the part of words that training hides. label_smoothing: see :func:`.summary_rows.likelihood`.
        learning_rate, weight_decay, clip, schedule, warmup, patience, accelerator, backward_memory: see
            :class:`recurra.train.settings.FitSettings`.
        max_epochs: at most that many passes over the pairs. batch_size: B, pairs of like length in a batch.
        validation_fraction: the part of the training pairs that decides which epoch is kept; 0: the last is.
        beam: K hypotheses of the search; 1 is greedy. length_penalty: above 0 prefers longer (Wu et al., 2016).
        no_repeat: write no run of so many words twice, signs and pieces of words counted as words; 0: anything goes.
        max_length: write at most so many words; None: max_target_tokens.
        random_state, progress: see :class:`~recurra.tasks.TextClassifier`.

    Attributes:
        network_: the fitted :class:`~recurra.tasks.summary_network.SummaryNetwork`. tokenizer_: its vocabulary,
            :class:`recurra.data.WrittenWords`.
        history_, best_epoch_, seed_: see :class:`~recurra.tasks.TextClassifier`.

    Example:
        >>> bodies = ["the cat sat on the mat", "the dog sat on the rug"] * 8
        >>> model = Summarizer(hidden_size=8, embedding_size=8, max_epochs=2, validation_fraction=0, random_state=0)
        >>> len(model.fit(bodies, ["a cat", "a dog"] * 8).predict(["the cat sat"]))
        1
    """

    task = "summarize"
    monitor = "valid_loss"
    FREE = SEARCH

    cell: Any = "lstm"
    hidden_size: Any = 128
    num_layers: int | None = 1
    embedding_size: int = 128
    attention: str = "multiplicative"
    copying: bool = True
    input_feeding: bool = False
    unit: str = "word"
    vocab_size: int = 12_000
    min_count: int = 2
    lowercase: bool = False
    max_source_tokens: int = 200
    max_target_tokens: int = 40
    dropout: float = 0.3
    embedding_dropout: float = 0.2
    word_dropout: float = 0.05
    label_smoothing: float = 0.05
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    clip: float | None = 1.0
    schedule: str = "linear"
    warmup: float = 0.05
    batch_size: int = 32
    max_epochs: int = 8
    patience: int | None = 3
    validation_fraction: float = 0.05
    accelerator: str = "auto"
    backward_memory: str | int = "all"
    beam: int = 4
    length_penalty: float = 0.6
    no_repeat: int = 3
    max_length: int | None = None
    random_state: Any = None
    progress: bool = False

    def fit(
        self,
        sources: Iterable[str],
        targets: Iterable[str],
        *,
        validation: tuple[Iterable[str], Iterable[str]] | None = None,
        run_dir: Path | str | None = None,
        resume: bool = False,
        overwrite: bool = False,
        notes: Mapping[str, Any] | None = None,
    ) -> Self:
        """Fit on sources and what is to be written of each.

        Args:
            sources, targets: as many of each, none of them empty.
            validation: held-out sources and targets; None: `validation_fraction` of the pairs.
            run_dir, resume, overwrite, notes: see :meth:`recurra.tasks.TextClassifier.fit`.

        Raises:
            DataError, OptionError, UnknownNameError, RunFolderError, DivergedError, KeyboardInterrupt: see
                :meth:`recurra.tasks.TextClassifier.fit`.
        """
        settings = self._begin()
        pairs = _checked_pairs(sources, targets)
        held = _checked_pairs(*validation, "validation ") if validation is not None else []
        data = fingerprint(*zip(*pairs, strict=True), *zip(*held, strict=True))
        if validation is None and self.validation_fraction:
            if len(pairs) < 2:
                raise DataError(
                    "one pair leaves none to hold out", instead="more pairs, or validation_fraction=0, which holds none"
                )
            kept, out = stratified_split([0] * len(pairs), plain(self.validation_fraction), self.seed_)
            pairs, held = [pairs[i] for i in kept], [pairs[i] for i in out]
        self.about_ = self._about(data, {"pairs": len(pairs), "validation_pairs": len(held)}, notes)

        def job() -> Job:
            valid = self._rows(held).batches(plain(self.batch_size), seed=None) if held else None
            return Job(
                functools.partial(likelihood, smoothing=plain(self.label_smoothing)),
                self._rows(pairs).batches(plain(self.batch_size), seed=self.seed_),
                valid,
                settings,
            )

        def record(folder: RunFolder) -> None:
            split, shown = ("held out", held) if held else ("training", pairs)
            even = np.linspace(0, len(shown) - 1, min(REPORTED, len(shown))).round().astype(int)
            shown = [shown[i] for i in even]
            self.record(folder.path, split, [s for s, _ in shown], [t for _, t in shown])

        return self._train(
            run_dir,
            resume=resume,
            overwrite=overwrite,
            learn=lambda: self._learn_words(pairs),
            job=job,
            record=record,
        )

    def predict(
        self, sources: Iterable[str], *, beam: int | None = None, temperature: float | None = None, seed: int = 0
    ) -> list[str]:
        """What is written of each source.

        Args:
            sources: none of them empty. beam: instead of the setting.
            temperature: draw the words instead of searching, at this temperature.
            seed: of the drawing: the same gives the same words for the same sources, all of them together.

        Raises:
            NotFittedError: before `fit`. DataError: the sources are none, or one is empty. OptionError: `beam` or
                `temperature` is out of range.
        """
        reads = self._reads(sources)
        found = self._found(reads, beam=beam, temperature=temperature, seed=seed)
        return [text_of(self.tokenizer_, one[0].words, read) for one, read in zip(found, reads, strict=True)]

    def candidates(self, sources: Iterable[str], *, beam: int | None = None) -> list[list[tuple[str, float]]]:
        """What the search ended with: of each source several texts and their scores, the best first."""
        reads = self._reads(sources)
        found = self._found(reads, beam=beam)
        return [
            [(text_of(self.tokenizer_, h.words, read), h.score) for h in one]
            for one, read in zip(found, reads, strict=True)
        ]

    def attended(self, source: str, written: str | None = None) -> Attended:
        """Where each word of a summary comes from.

        Args:
            source: a text. written: a summary of it; None: what :meth:`predict` writes.

        Raises:
            NotFittedError: before `fit`. DataError: one of them is empty.
        """
        (read,) = self._reads([source])
        ids = self._found([read])[0][0].words if written is None else self._ids(written, read)
        if not ids:
            raise EmptyTextError("there are no words in what was written", received=repr(written)[:80])
        ((weights, copied),) = self._forced([read], [ids])
        words = [self.tokenizer_.key(word) for word in read.words]
        return Attended(words, [word_of(self.tokenizer_, i, read) for i in ids], weights, copied)

    def evaluate(self, sources: Iterable[str], references: Iterable[str | Iterable[str]]) -> dict[str, Any]:
        """ROUGE, BLEU and chrF of what is written, beside the first sentence of a source and a copy of its beginning.

        Args:
            sources: none of them empty. references: as many; of each a text, or a list of texts whose first is the
                original: figures are against the first one, and where there are several against all of them too.

        Returns:
            What :func:`recurra.tasks.summary_figures.summary_figures` does, and ``copy_rate``, the part of written
            words more probably copied than not.

        Raises:
            NotFittedError: before `fit`. DataError: the pairs are none, or do not fit each other.
            MissingDependencyError: rouge-score or sacrebleu is not installed.
        """
        return self._judged(*_checked_references(sources, references))[0]

    def record(
        self, run_dir: Path | str, split: str, sources: Iterable[str], references: Iterable[str | Iterable[str]]
    ) -> dict[str, Any]:
        """Evaluate on a split, add its figures to ``metrics.json``, and make ``report.html`` one about that split.

        Args:
            run_dir: the folder that this was fitted in, or loaded from. split: its name, such as ``"test"``.
            sources, references: its content, as :meth:`evaluate` takes it.
        """
        from recurra.tasks.summary_report import summary_report

        read, several = _checked_references(sources, references)
        folder, (figures, written) = RunFolder(run_dir), self._judged(read, several)
        if not ranks.rank():
            pairs = [(source, first) for source, (first, *_) in zip(read, several, strict=True)]
            self._write_figures(folder, split, figures)
            write_atomically(folder.report, summary_report(self, split, pairs, written, figures))
        return figures

    def batch(self, sources: Iterable[str], targets: Iterable[str]) -> tuple[Any, Any]:
        """Pairs as the network reads them: ``network_(*batch)``."""
        self._require_fitted()
        pairs = _checked_pairs(sources, targets)
        read, words, _ = self._rows(pairs)[[*range(len(pairs))]]
        return read, words

    # --- parts --------------------------------------------------------------------------------------------------------

    def _network(self) -> SummaryNetwork:
        return SummaryNetwork(len(self.tokenizer_), **{name: plain(getattr(self, name)) for name in NETWORK})

    def _read_tokenizer(self, folder: RunFolder) -> WrittenWords:
        try:
            return WrittenWords.of_json(read_json(folder.tokenizer))
        except DataError as error:
            raise RunFolderError(f"{folder.tokenizer} is damaged: no vocabulary of words", instead=AGAIN) from error

    def _checked(self) -> FitSettings:
        least = {"embedding_size": 1, "vocab_size": 5, "min_count": 1, "max_source_tokens": 1, "max_target_tokens": 1}
        for name, bound in {**least, "batch_size": 1, "beam": 1, "no_repeat": 0}.items():
            require_whole(name, plain(getattr(self, name)), least=bound)
        if self.max_length is not None:
            require_whole("max_length", plain(self.max_length), least=1)
        for name, most in MOST.items():
            if (plain(getattr(self, name)) or 0) > most:
                raise OptionError(f"{name} must be at most {most}", received=repr(getattr(self, name)))
        for name in ("dropout", "embedding_dropout", "word_dropout", "label_smoothing", "validation_fraction"):
            require_number(name, plain(getattr(self, name)), least=0, below=1)
        require_name("unit", self.unit, UNITS)
        require_number("length_penalty", plain(self.length_penalty), least=0)
        settings = FitSettings.of(self)
        require_network(self, lambda: SummaryNetwork(5, **{name: plain(getattr(self, name)) for name in NETWORK}))
        return settings

    def _learn_words(self, pairs: Sequence[tuple[str, str]]) -> WrittenWords:
        plainly = WrittenWords([])
        sources = (plainly.split(source, plain(self.max_source_tokens)) for source, _ in pairs)
        targets = (plainly.split(target, plain(self.max_target_tokens)) for _, target in pairs)
        options = {"min_count": plain(self.min_count), "lowercase": bool(self.lowercase)}
        return learn_words(sources, targets, plain(self.vocab_size), unit=self.unit, **options)

    def _rows(self, pairs: Sequence[tuple[str, str]]) -> PairRows:
        reads = [read_source(self.tokenizer_, source, plain(self.max_source_tokens)) for source, _ in pairs]
        most = plain(self.max_target_tokens)
        targets = [target_ids(self.tokenizer_, t, read, most) for (_, t), read in zip(pairs, reads, strict=True)]
        return PairRows(reads, targets, len(self.tokenizer_))

    def _reads(self, sources: Iterable[str]) -> list[Read]:
        self._require_fitted()
        most = plain(self.max_source_tokens)
        return [read_source(self.tokenizer_, source, most) for source in checked_texts(sources, "sources")]

    def _ids(self, written: str, read: Read) -> tuple[int, ...]:
        ids = target_ids(self.tokenizer_, written, read, sys.maxsize)
        return (*(int(i) for i in ids[:-1]),)

    def _found(
        self, reads: Sequence[Read], *, beam: int | None = None, temperature: float | None = None, seed: int = 0
    ) -> list[list[Hypothesis]]:
        K = plain(self.beam) if beam is None else beam
        require_whole("beam", K, least=1)
        if temperature is not None:
            require_number("temperature", temperature, above=0)
            require_seed(seed)
            K = 1
        common = {
            "max_length": plain(self.max_length or self.max_target_tokens),
            "min_length": 1,
            "no_repeat": plain(self.no_repeat),
        }
        found: list[list[Hypothesis]] = [[] for _ in reads]
        for number, (rows, batch) in enumerate(self._batches(reads)):
            writing = Writing(self.network_, batch.source, K)
            if temperature is None:
                told = beam_search(writing, len(rows), K, alpha=plain(self.length_penalty), **common)
            else:
                own = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
                drawn = sample(writing, len(rows), temperature=temperature, seed=own, **common)
                told = [[one] for one in drawn]
            for row, hypotheses in zip(rows, told, strict=True):
                found[row] = hypotheses
        return found

    def _forced(self, reads: Sequence[Read], told: Sequence[Sequence[int]]) -> list[tuple[Any, Any]]:
        """Of each source the attention ``(T, S)`` of what was written of it, and the part that is copied ``(T,)``."""
        found: list[tuple[Any, Any]] = [(None, None)] * len(reads)
        ids = [np.array(one, dtype=np.int32) for one in told]
        for rows, batch in self._batches(reads, ids):
            frames = self.network_(batch.source, batch.words)
            whole, copied, _ = self.network_.log_likelihood(frames, batch.source, batch.targets)
            lengths = [len(ids[row]) for row in rows]
            parts = (copied - whole).exp().cpu().split(lengths)
            for k, (row, part) in enumerate(zip(rows, parts, strict=True)):
                weights = frames.copied[k, : lengths[k], : len(reads[row].ids)]
                found[row] = weights.cpu().numpy(), part.numpy()
        return found

    def _batches(self, reads: Sequence[Read], ids: Any = None) -> Iterator[tuple[list[int], Any]]:
        rows = PairRows(reads, ids, len(self.tokenizer_))
        device = next(self.network_.parameters()).device
        self.network_.eval()
        with torch.inference_mode():
            for indices in rows.sampler(INFERENCE_BATCH, seed=None):
                source, words, targets = rows[indices]
                source = source._replace(
                    tokens=source.tokens.to(device),
                    extended=source.extended.to(device),
                    lengths=source.lengths.to(device),
                )
                yield indices, PairBatch(source, words.to(device), targets.to(device))

    def _judged(self, sources: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[dict[str, Any], list[str]]:
        from recurra.tasks.summary_figures import summary_figures

        reads = self._reads(sources)
        told = [one[0].words for one in self._found(reads)]
        written = [text_of(self.tokenizer_, ids, read) for ids, read in zip(told, reads, strict=True)]
        copied = np.concatenate([part for _, part in self._forced(reads, told)])
        figures = summary_figures(written, references, sources)
        return {**figures, "copy_rate": round(float((copied > 0.5).mean()), 4)}, written


def _checked_pairs(sources: Iterable[str], targets: Iterable[str], name: str = "") -> list[tuple[str, str]]:
    read, written = checked_texts(sources, f"{name}sources"), checked_texts(targets, f"{name}targets")
    _require_as_many(read, written, f"{name}targets")
    return [*zip(read, written, strict=True)]


def _checked_references(sources: Iterable[str], references: Any) -> tuple[Sequence[str], list[Sequence[str]]]:
    read = checked_texts(sources, "sources")
    given = checked_texts(references, "references") if isinstance(references, str | bytes) else [*references]
    alone = lambda one: isinstance(one, str | bytes) or not isinstance(one, Iterable)
    several = [checked_texts([one] if alone(one) else one, f"references[{k}]") for k, one in enumerate(given)]
    _require_as_many(read, several, "references")
    return read, several


def _require_as_many(sources: Sequence[str], others: Sequence[Any], name: str) -> None:
    if len(sources) != len(others):
        raise DataError(
            f"{name} must be as many as the sources",
            received=f"{len(others)} {name.rpartition(' ')[2]}, {len(sources)} sources",
        )
