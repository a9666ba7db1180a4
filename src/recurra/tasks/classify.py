"""Text classification with scikit-learn's manners."""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from torch import nn
from torch.utils.data import DataLoader, Dataset

from recurra.data import (
    Batch,
    LengthBucketSampler,
    Stored,
    Texts,
    collate,
    encode,
    stratified_split,
    train_word_tokenizer,
)
from recurra.data.vocabulary import encoded
from recurra.tasks.bounds import require_network
from recurra.tasks.classes_saved import read_classes, read_words
from recurra.tasks.given import Labels, Targets, checked_labels, checked_texts, classes_of, fingerprint, targets_among
from recurra.tasks.text_network import INITIAL_DEVIATION, TextNetwork, poolings_named
from recurra.tasks.trained import Job, Trained
from recurra.train import ranks
from recurra.train.files import write_atomically
from recurra.train.run_folder import RunFolder
from recurra.train.settings import FitSettings, plain, require_name, require_number, require_whole

if TYPE_CHECKING:
    from recurra.train.module import Step

# The settings that TextNetwork takes by the same names.
NETWORK = [
    *("cell", "hidden_size", "num_layers", "bidirectional", "embedding_size", "pooling"),
    *("dropout", "embedding_dropout", "head_dropout", "word_dropout"),
]
INFERENCE_BATCH = 256
AT_ONCE = 1 << 16  # texts whose words are in memory together, to be classified
WORD_VECTORS = ("random", "cooccurrence")
ENOUGH_STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 1000, 4, 50  # of a training whose max_epochs is left open


@dataclass(kw_only=True, eq=False, repr=False)
class TextClassifier(ClassifierMixin, Trained):  # type: ignore[misc]
    """Classify texts by a recurrent network.

    Args:
        cell: a name (``recurra cells`` lists them), a :class:`~recurra.Cell` class, or a callable ``(D, H) -> Cell``.
        hidden_size: H, units of each direction: one number, or one a layer.
        num_layers: L, recurrent layers; None where `hidden_size` gives one number a layer.
        bidirectional: read from both ends.
        embedding_size: D, the width of a word's vector.
        word_vectors: how they begin: ``"cooccurrence"``, from the words that stand nearby in the training texts
            (:func:`recurra.data.cooccurrence_vectors`; half a minute for six million words), or ``"random"``.
        vocab_size: V, at most so many words, the most frequent of the training texts.
        max_tokens: read the last so many words of a text.
        pooling: what is read off the frames: ``"last"`` (the last valid frame), ``"mean"``, ``"max"``, or several
            joined by ``_``, as in ``"mean_max"``. Padding never takes part.
        dropout: between layers. embedding_dropout: on word vectors. head_dropout: before the last, linear layer.
        word_dropout: the part of words that training replaces by the unknown word.
        adversarial: for half of the loss, move the word vectors by so many of their deviations against it; takes about
            2.5 times as long, and generalises better (Miyato et al., 2017).
        learning_rate, weight_decay, clip, schedule, warmup, patience, monitor, accelerator,
        backward_memory: see :class:`recurra.train.settings.FitSettings`.
        max_epochs: at most that many passes over the training texts; None: as many as 1,000 steps take, but 4 at least
            and 50 at most.
        batch_size: B, texts of like length in a batch.
        validation_fraction: the part of the training texts, of each class alike, that decides which epoch is kept;
            0: none, and the last epoch is.
        random_state: an integer for the same weights each time; None for others; or a ``numpy.random.RandomState``.
        progress: show a bar and each epoch's figures on stderr.

    Attributes:
        classes_: the classes, in order.
        network_: the fitted :class:`~recurra.tasks.text_network.TextNetwork`, with the weights of the best epoch.
        tokenizer_: the vocabulary, from training texts only.
        history_: the figures of each epoch. best_epoch_: the one that was kept, from 1.
        seed_: the seed that `random_state` came to.

    Example:
        >>> texts = ["a fine film", "dull and long", "fine acting", "a dull plot"] * 8
        >>> classifier = TextClassifier(hidden_size=8, max_epochs=5, validation_fraction=0, random_state=0)
        >>> classifier.fit(texts, ["good", "bad"] * 16).predict(["a fine plot"]).shape
        (1,)
    """

    task = "classify"

    cell: Any = "lstm"
    hidden_size: Any = 64
    num_layers: int | None = 1
    bidirectional: bool = True
    embedding_size: int = 100
    word_vectors: str = "cooccurrence"
    vocab_size: int = 30_000
    max_tokens: int = 400
    pooling: str = "mean_max"
    dropout: float = 0.2
    embedding_dropout: float = 0.5
    head_dropout: float = 0.5
    word_dropout: float = 0.2
    adversarial: float = 0.0
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    clip: float | None = 1.0
    schedule: str = "linear"
    warmup: float = 0.05
    batch_size: int = 64
    max_epochs: int | None = None
    patience: int | None = 5
    monitor: str = "valid_accuracy"
    validation_fraction: float = 0.1
    accelerator: str = "auto"
    backward_memory: str | int = "all"
    random_state: Any = None
    progress: bool = False

    def fit(
        self,
        texts: Iterable[str],
        labels: Iterable[Any],
        *,
        validation: tuple[Iterable[str], Iterable[Any]] | None = None,
        run_dir: Path | str | None = None,
        resume: bool = False,
        overwrite: bool = False,
        notes: Mapping[str, Any] | None = None,
    ) -> Self:
        """Fit on texts and their labels.

        Under ``torchrun`` its processes train together: call it in each with the same data.

        Args:
            texts: none of them empty; as :class:`recurra.data.Texts`, which a table's file is read as, memory holds
                neither them nor their words.
            labels: as many, all strings, all integers or all booleans.
            validation: held-out texts and labels; None: `validation_fraction` of the training texts.
            run_dir: leave a run folder there: settings, weights, figures, checkpoints and a report.
            resume: go on with the run in `run_dir` from the end of its last epoch, or begin it where none has ended;
                data and settings must be the same, and the weights are then those of a run that was never stopped.
            overwrite: discard a run that `run_dir` already holds.
            notes: kept in the run's config, such as the name of the data.

        Raises:
            DataError: the data cannot be learnt from; see its subclasses. OptionError: a setting is out of range.
            UnknownNameError: no cell or pooling has that name.
            RunFolderError: `run_dir` holds something already, or cannot be resumed.
            DivergedError: the loss became NaN or infinite. KeyboardInterrupt: stopped; the message says what is kept.
        """
        settings = self._begin()
        seed = self.seed_
        documents = checked_texts(texts)
        known = checked_labels(labels, len(documents))
        classes, targets = classes_of(known)
        held, held_targets = self._validation(validation, classes)
        data = fingerprint(documents, known.tolist(), held, held_targets.tolist())
        self.classes_ = classes
        if validation is None and self.validation_fraction:
            kept, out = stratified_split(targets, plain(self.validation_fraction), seed)
            held, held_targets = _selected(documents, out), targets[out]
            documents, targets = _selected(documents, kept), targets[kept]
        self.about_ = self._about(data, {"texts": len(documents), "validation_texts": len(held)}, notes)

        def job() -> Job:
            stored = lambda of: Stored(
                ([ids] for ids in encoded(self.tokenizer_, of, plain(self.max_tokens))), np.int32
            )
            train = Rows(stored(documents), targets)
            passes = math.ceil(ENOUGH_STEPS * plain(self.batch_size) / len(train))
            chosen = min(max(passes, FEWEST_EPOCHS), MOST_EPOCHS) if self.max_epochs is None else settings.max_epochs
            valid = Rows(stored(held), held_targets) if held else None
            return Job(
                functools.partial(cross_entropy, adversarial=plain(self.adversarial)),
                train.batches(plain(self.batch_size), seed=seed),
                valid.batches(INFERENCE_BATCH, seed=None) if valid else None,
                replace(settings, max_epochs=chosen),
                lambda: self._begin_with_cooccurrence(train.tokens, seed),
            )

        parts = ("held out", held, held_targets) if held else ("training", documents, targets)
        return self._train(
            run_dir,
            resume=resume,
            overwrite=overwrite,
            learn=lambda: train_word_tokenizer(documents, plain(self.vocab_size)),
            job=job,
            record=lambda folder: self._record(folder, *parts),
        )

    def predict_proba(self, texts: Iterable[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Probabilities, ``(N, classes)``, in the order of ``classes_``.

        Raises:
            NotFittedError: before `fit`. DataError: the texts are none, or one is empty.
        """
        self._require_fitted()
        documents = checked_texts(texts)
        device = next(self.network_.parameters()).device
        found = np.empty((len(documents), len(self.classes_)))
        self.network_.eval()
        for start in range(0, len(documents), AT_ONCE):
            rows = Rows(encode(self.tokenizer_, documents[start : start + AT_ONCE], plain(self.max_tokens)), None)
            with torch.inference_mode():
                for indices in rows.sampler(INFERENCE_BATCH, seed=None):
                    batch = rows[indices]
                    scores = self.network_(batch.tokens.to(device), batch.lengths.to(device))
                    found[start + np.array(indices)] = scores.double().softmax(-1).cpu().numpy()
        return found

    def predict(self, texts: Iterable[str]) -> Labels:
        """The most probable class of each text."""
        found = self.predict_proba(texts)
        return self.classes_[found.argmax(1)]  # type: ignore[no-any-return]

    def evaluate(self, texts: Iterable[str], labels: Iterable[Any]) -> dict[str, Any]:
        """Accuracy, macro F1, log loss, figures of each class, and the confusion matrix.

        Raises:
            DataError: the labels do not fit the texts, or hold classes that the training data did not.
        """
        from recurra.tasks.figures import classification_figures

        documents, targets = self._given(texts, labels)
        return classification_figures(targets, self.predict_proba(documents), self.classes_)

    def record(self, run_dir: Path | str, split: str, texts: Iterable[str], labels: Iterable[Any]) -> dict[str, Any]:
        """Evaluate on a split, add its figures to ``metrics.json``, and make ``report.html`` one about that split.

        Args:
            run_dir: the folder that this classifier was fitted in, or loaded from.
            split: its name, such as ``"test"``.
            texts, labels: its content.

        Returns:
            What :meth:`evaluate` returns.
        """
        return self._record(RunFolder(run_dir), split, *self._given(texts, labels))

    def __sklearn_tags__(self) -> Any:
        """Texts in, classes out."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False, True
        return tags

    def _learnt(self) -> dict[str, Any]:
        return {"classes": self.classes_.tolist()}

    def _read_learnt(self, config: dict[str, Any], folder: RunFolder) -> None:
        self.classes_ = read_classes(config, folder)

    def _read_tokenizer(self, folder: RunFolder) -> Any:
        return read_words(folder)

    def _network(self) -> TextNetwork:
        options = {name: plain(getattr(self, name)) for name in NETWORK}
        return TextNetwork(self.tokenizer_.get_vocab_size(), len(self.classes_), **options)

    def _begin_with_cooccurrence(self, tokens: Sequence[Any], seed: int) -> None:
        from recurra.data.word_vectors import cooccurrence_vectors

        if self.word_vectors != "cooccurrence":
            return
        weight = self.network_.embedding.weight
        found = cooccurrence_vectors(tokens, *weight.shape, seed=seed % 2**32)
        with torch.no_grad():  # as large as random ones; words that were not seen stay random
            seen = torch.from_numpy(found.any(1))
            weight[seen] = torch.from_numpy(found).to(weight)[seen] * INITIAL_DEVIATION

    def _checked(self) -> FitSettings:
        for name, least in {"embedding_size": 1, "vocab_size": 3, "max_tokens": 1, "batch_size": 1}.items():
            require_whole(name, plain(getattr(self, name)), least=least)
        for name in ("dropout", "embedding_dropout", "head_dropout", "word_dropout", "validation_fraction"):
            require_number(name, plain(getattr(self, name)), least=0, below=1)
        require_number("adversarial", plain(self.adversarial), least=0)
        poolings_named(self.pooling)
        require_name("word vectors", self.word_vectors, WORD_VECTORS)
        settings = FitSettings.of(self, **({} if self.max_epochs is not None else {"max_epochs": MOST_EPOCHS}))
        require_network(self, lambda: TextNetwork(3, 2, **{name: plain(getattr(self, name)) for name in NETWORK}))
        return settings

    def _validation(self, validation: Any, classes: Labels) -> tuple[Sequence[str], Targets]:
        if validation is None:
            return [], np.empty(0, dtype=np.int64)
        texts = checked_texts(validation[0], "validation texts")
        labels = checked_labels(validation[1], len(texts), "validation labels")
        return texts, targets_among(labels, classes, "validation labels")

    def _given(self, texts: Iterable[str], labels: Iterable[Any]) -> tuple[Sequence[str], Targets]:
        documents = checked_texts(texts)
        return documents, targets_among(checked_labels(labels, len(documents)), self.classes_)

    def _record(self, folder: RunFolder, split: str, texts: Sequence[str], targets: Targets) -> dict[str, Any]:
        from recurra.tasks.classify_report import classification_report
        from recurra.tasks.figures import classification_figures

        probabilities = self.predict_proba(texts)
        figures = classification_figures(targets, probabilities, self.classes_)
        if ranks.rank():
            return figures
        self._write_figures(folder, split, figures)
        write_atomically(folder.report, classification_report(self, split, texts, targets, probabilities, figures))
        return figures


def _selected(texts: Sequence[str], rows: Any) -> Sequence[str]:
    return texts.select(rows) if isinstance(texts, Texts) else [texts[i] for i in rows]


class Rows(Dataset[Batch]):
    """Token ids of texts, and their classes; indexed by a list of rows, it gives their padded batch."""

    def __init__(self, tokens: Sequence[np.ndarray[Any, np.dtype[np.int32]]], targets: Targets | None):
        self.tokens = tokens
        self.targets = np.zeros(len(tokens), dtype=np.int64) if targets is None else targets

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: list[int]) -> Batch:
        return collate([self.tokens[i] for i in rows], self.targets[rows])

    def sampler(self, batch_size: int, seed: int | None) -> LengthBucketSampler:
        """Batches of like length; without a seed in a fixed order."""
        lengths = np.fromiter(map(len, self.tokens), np.int64, len(self.tokens))
        return LengthBucketSampler(lengths, batch_size, seed=seed or 0, shuffle=seed is not None)

    def batches(self, batch_size: int, seed: int | None) -> DataLoader[Batch]:
        """The same as a loader, for Lightning."""
        return DataLoader(
            self,
            batch_size=None,  # the sampler gives whole batches
            sampler=self.sampler(batch_size, seed),
            # Each pass draws one number; from torch's global generator that would move the dropout of a resumed run.
            generator=torch.Generator(),
        )


def cross_entropy(network: Any, batch: Batch, *, adversarial: float = 0.0) -> "Step":
    """The objective of classification: cross-entropy, and the part of texts that are classified rightly.

    With `adversarial` ε > 0, half of the training loss is of word vectors moved by ε in the direction that raises the
    loss most, in units of the vectors' own deviation (Goodfellow et al., 2015; on texts Miyato et al., 2017).
    """
    from recurra.train.module import Step

    x = network.vectors(batch.tokens)
    scores = network.scores(x, batch.lengths)
    right = (scores.argmax(-1) == batch.labels).float().mean()
    loss = nn.functional.cross_entropy(scores, batch.labels)
    if adversarial and network.training:
        (slope,) = torch.autograd.grad(loss, x, retain_graph=True)
        length = slope.flatten(1).norm(dim=1).clamp_min(torch.finfo(slope.dtype).tiny)
        radius = adversarial * network.embedding.weight.detach().std()
        moved = network.scores(x + radius * slope / length[:, None, None], batch.lengths)
        loss = (loss + nn.functional.cross_entropy(moved, batch.labels)) / 2
    return Step(loss, len(batch.labels), {"accuracy": right})
