"""Text classification with scikit-learn's manners."""

import functools
import math
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from torch import nn
from torch.utils.data import DataLoader, Dataset

from recurra.cells import CELLS
from recurra.data import Batch, LengthBucketSampler, collate, encode, stratified_split, train_word_tokenizer
from recurra.errors import DataError, NotFittedError, OptionError
from recurra.tasks import saved
from recurra.tasks.given import Labels, Targets, checked_labels, checked_texts, classes_of, fingerprint, targets_among
from recurra.tasks.text_network import INITIAL_DEVIATION, TextNetwork, poolings_named
from recurra.train import ranks
from recurra.train.files import write_atomically
from recurra.train.randomness import seeded
from recurra.train.run_folder import FINISHED, NEW, TRAINING, RunFolder, machine, versions, write_json
from recurra.train.settings import FitSettings, plain, require_name, require_number, require_whole
from recurra.train.untrusted import read_json

if TYPE_CHECKING:
    from recurra.train.module import Step

# The settings that TextNetwork takes by the same names.
NETWORK = [
    *("cell", "hidden_size", "num_layers", "bidirectional", "embedding_size", "pooling"),
    *("dropout", "embedding_dropout", "head_dropout", "word_dropout"),
]
NO_SETTING = ("progress", "random_state")  # the seed that came of random_state is kept instead
INFERENCE_BATCH = 256
WORD_VECTORS = ("random", "cooccurrence")
ENOUGH_STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 1000, 4, 50  # of a training whose max_epochs is left open


@dataclass(kw_only=True, eq=False, repr=False)
class TextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
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
        learning_rate, weight_decay, clip, schedule, warmup, patience, monitor, accelerator:
            see :class:`recurra.train.settings.FitSettings`.
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

    task: ClassVar[str] = "classify"
    FREE: ClassVar[tuple[str, ...]] = ()

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
            texts: none of them empty.
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
        from recurra.train.fit import fit  # Lightning takes seconds to import, and prediction needs none of it

        began = time.perf_counter()
        self.__dict__.pop("best_epoch_", None)  # a fit that fails leaves nothing that looks fitted
        settings, seed = self._checked(), ranks.by_first(self._seed)
        documents = checked_texts(texts)
        known = checked_labels(labels, len(documents))
        classes, targets = classes_of(known)
        held, held_targets = self._validation(validation, classes)
        about: dict[str, Any] = {
            "seed": seed,
            "data": {
                "fingerprint": fingerprint(documents, known.tolist(), held, held_targets.tolist()),
                "texts": len(documents),
                "validation_texts": len(held),
            },
            "notes": dict(notes or {}),
            "versions": versions(),
            "machine": machine(),
        }
        if len({*ranks.gathered(about["data"]["fingerprint"])}) > 1:
            raise DataError(
                "the processes of torchrun were given different data",
                received=f"process {ranks.rank()}: {len(documents)} texts",
                instead="the same texts in the same order in each; their batches are divided by fit",
            )
        if validation is None and self.validation_fraction:
            kept, out = stratified_split(targets, plain(self.validation_fraction), seed)
            held, held_targets = [documents[i] for i in out], targets[out]
            documents, targets = [documents[i] for i in kept], targets[kept]
        if resume and run_dir is None:
            raise OptionError("resume=True needs the run folder that it goes on with", instead="fit(..., run_dir=...)")
        self.classes_, self.seed_, self.about_ = classes, seed, about
        with nullcontext(run_dir) if run_dir is not None else tempfile.TemporaryDirectory() as place:
            folder = RunFolder(place)
            state = NEW
            if run_dir is not None:
                state = ranks.by_first(lambda: saved.begin(self, folder, resume=resume, overwrite=overwrite))
            if state == FINISHED:
                return self._adopt(type(self).load(folder.path, cells=[self.cell] if callable(self.cell) else ()))
            if state == TRAINING:
                self.tokenizer_ = ranks.by_first(lambda: saved.tokenizer_of(folder))
            else:
                self.tokenizer_ = train_word_tokenizer(documents, plain(self.vocab_size))
            writes = run_dir is not None and ranks.rank() == 0
            if writes and state == NEW:
                saved.write_config(self, folder)
            train = Rows(encode(self.tokenizer_, documents, plain(self.max_tokens)), targets)
            if self.max_epochs is None:
                passes = math.ceil(ENOUGH_STEPS * plain(self.batch_size) / len(train))
                settings = replace(settings, max_epochs=min(max(passes, FEWEST_EPOCHS), MOST_EPOCHS))
            valid = Rows(encode(self.tokenizer_, held, plain(self.max_tokens)), held_targets) if held else None
            with seeded(seed):
                self.network_ = self._network()
                if self.word_vectors == "cooccurrence" and state == NEW:
                    self._begin_with_cooccurrence(train.tokens, seed)
                fitted = fit(
                    self.network_,
                    functools.partial(cross_entropy, adversarial=plain(self.adversarial)),
                    train.batches(plain(self.batch_size), seed=seed),
                    valid.batches(INFERENCE_BATCH, seed=None) if valid else None,
                    settings,
                    checkpoints=folder.checkpoints,
                    resume=state == TRAINING,
                    progress=self.progress,
                )
            self.history_, self.best_epoch_ = fitted.history, fitted.best_epoch
            self.about_["seconds"] = round(time.perf_counter() - began, 1)
            if writes:
                if held:
                    self._record(folder, "held out", held, held_targets)
                else:
                    self._record(folder, "training", documents, targets)
                folder.write_weights(self.network_.state_dict())
                saved.write_config(self, folder)  # last: it says that the run is finished
        return self

    def predict_proba(self, texts: Iterable[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Probabilities, ``(N, classes)``, in the order of ``classes_``.

        Raises:
            NotFittedError: before `fit`. DataError: the texts are none, or one is empty.
        """
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(
                "this TextClassifier is not fitted", instead="fit(texts, labels) or TextClassifier.load"
            )
        rows = Rows(encode(self.tokenizer_, checked_texts(texts), plain(self.max_tokens)), None)
        device = next(self.network_.parameters()).device
        found = np.empty((len(rows), len(self.classes_)))
        self.network_.eval()
        with torch.inference_mode():
            for indices in rows.sampler(INFERENCE_BATCH, seed=None):
                batch = rows[indices]
                scores = self.network_(batch.tokens.to(device), batch.lengths.to(device))
                found[indices] = scores.double().softmax(-1).cpu().numpy()
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

    def save(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write a run folder that :meth:`load` reads.

        Raises:
            NotFittedError: before `fit`. RunFolderError: the folder holds something already.
        """
        if not self.__sklearn_is_fitted__():
            raise NotFittedError("this TextClassifier is not fitted", instead="fit(texts, labels) first")
        if ranks.rank():
            return
        folder = RunFolder(path)
        folder.prepare(overwrite=overwrite)
        folder.write_weights(self.network_.state_dict())
        write_json(folder.metrics, {"history": self.history_, "best_epoch": self.best_epoch_})
        saved.write_config(self, folder)

    @classmethod
    def load(cls, path: Path | str, *, cells: Iterable[Any] = ()) -> Self:
        """Read a run folder; nothing in it is executed.

        Args:
            path: the folder that `fit(run_dir=…)`, `save` or ``recurra train classify`` wrote.
            cells: your own cells, where the run uses one: they are found by their ``__name__``.

        Raises:
            RunFolderError: it is damaged, truncated, of a later format, or no such run.
            UnknownNameError: the run's cell is neither built in nor among `cells`.
        """
        return saved.load(cls, RunFolder(path), cells)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is something to predict with."""
        return hasattr(self, "best_epoch_")

    def __sklearn_tags__(self) -> Any:
        """Texts in, classes out."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False, True
        return tags

    def settings(self) -> dict[str, Any]:
        """Everything that decides the weights, apart from the data, as JSON holds it."""
        found = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name not in NO_SETTING}
        found["cell"] = cell_name(self.cell)
        if not isinstance(found["hidden_size"], int):
            found["hidden_size"] = [plain(width) for width in found["hidden_size"]]
        return found

    def _network(self) -> TextNetwork:
        options = {name: plain(getattr(self, name)) for name in NETWORK}
        return TextNetwork(self.tokenizer_.get_vocab_size(), len(self.classes_), **options)

    def _begin_with_cooccurrence(self, tokens: list[Any], seed: int) -> None:
        from recurra.data.word_vectors import cooccurrence_vectors

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
        with seeded(0):  # a small one: what is wrong with the layers is said before any text is read
            TextNetwork(3, 2, **{name: plain(getattr(self, name)) for name in NETWORK} | {"embedding_size": 1})
        return settings

    def _validation(self, validation: Any, classes: Labels) -> tuple[list[str], Targets]:
        if validation is None:
            return [], np.empty(0, dtype=np.int64)
        texts = checked_texts(validation[0], "validation texts")
        labels = checked_labels(validation[1], len(texts), "validation labels")
        return texts, targets_among(labels, classes, "validation labels")

    def _seed(self) -> int:
        state = plain(self.random_state)
        if isinstance(state, int):
            if not 0 <= state < 2**63:
                raise OptionError("random_state must be at least 0 and below 2**63", received=repr(state))
            return state
        return int(check_random_state(state).randint(2**31 - 1))

    def _adopt(self, other: Self) -> Self:
        for name in ("network_", "tokenizer_", "classes_", "history_", "best_epoch_", "seed_", "about_"):
            setattr(self, name, getattr(other, name))
        return self

    def _given(self, texts: Iterable[str], labels: Iterable[Any]) -> tuple[list[str], Targets]:
        documents = checked_texts(texts)
        return documents, targets_among(checked_labels(labels, len(documents)), self.classes_)

    def _record(self, folder: RunFolder, split: str, texts: list[str], targets: Targets) -> dict[str, Any]:
        from recurra.tasks.classify_report import classification_report
        from recurra.tasks.figures import classification_figures

        probabilities = self.predict_proba(texts)
        figures = classification_figures(targets, probabilities, self.classes_)
        if ranks.rank():
            return figures
        known = read_json(folder.metrics) if folder.metrics.exists() else {}
        metrics = {**known, "history": self.history_, "best_epoch": self.best_epoch_, split: figures}
        write_json(folder.metrics, metrics)
        write_atomically(folder.report, classification_report(self, split, texts, targets, probabilities, figures))
        return figures


class Rows(Dataset[Batch]):
    """Token ids of texts, and their classes; indexed by a list of rows, it gives their padded batch."""

    def __init__(self, tokens: list[np.ndarray[Any, np.dtype[np.int32]]], targets: Targets | None):
        self.tokens = tokens
        self.targets = np.zeros(len(tokens), dtype=np.int64) if targets is None else targets

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: list[int]) -> Batch:
        return collate([self.tokens[i] for i in rows], self.targets[rows])

    def sampler(self, batch_size: int, seed: int | None) -> LengthBucketSampler:
        """Batches of like length; without a seed in a fixed order."""
        lengths = [len(t) for t in self.tokens]
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


def cell_name(cell: Any) -> str:
    """The name under which a cell stands in a run's config.

    Raises:
        OptionError: it has none.
    """
    if isinstance(cell, str):
        return cell
    name = getattr(cell, "__name__", None)
    if not isinstance(name, str):
        raise OptionError(
            "a cell needs a name to be kept in a run", received=repr(cell), instead="a class or a function"
        )
    named = {made: key for key, made in CELLS.items()}
    return named.get(cell, name)
