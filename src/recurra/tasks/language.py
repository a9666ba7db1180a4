"""Language models: the next word, character or subword; texts scored, and texts written."""

import copy
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from recurra.data.records import require_characters
from recurra.data.stored import Stored, Text
from recurra.data.units import UNITS, Units, units_of
from recurra.errors import DataError, DivergedError, OptionError, RunFolderError
from recurra.layers import Stream
from recurra.layers.chunks import detached
from recurra.tasks.bounds import require_network
from recurra.tasks.given import fingerprint, held_out, joined
from recurra.tasks.language_network import LanguageNetwork, NextToken, Streams
from recurra.tasks.sampling import drawn, require_sampling
from recurra.tasks.trained import Job, Trained
from recurra.train import ranks
from recurra.train.files import write_atomically
from recurra.train.run_folder import RunFolder
from recurra.train.settings import FitSettings, plain, require_name, require_number, require_seed, require_whole
from recurra.train.untrusted import AGAIN, read_json

# The settings that LanguageNetwork takes by the same names.
NETWORK = [
    *("cell", "hidden_size", "num_layers", "embedding_size", "tied", "dropout", "input_dropout", "output_dropout"),
    *("embedding_dropout", "weight_dropout"),
]
PARTS = ("dropout", "input_dropout", "output_dropout", "embedding_dropout", "weight_dropout", "validation_fraction")
# Of the vectors of characters, none of which is rare: with small ones an LSTM is silent for its first hundred steps.
# Tied vectors stay small, or the first scores were large.
CHARACTER_RANGE = 1.7
EVALUATION_CHUNK = 256  # frames; scores take 4 V bytes each
VALIDATION_STREAMS = 16  # while training; the figures of a report come of one
RECORDED = 100_000  # characters of the training text that a report without held-out text is about


@dataclass(kw_only=True, eq=False, repr=False)
class LanguageModel(Trained):
    """Predict the token that comes next, by a recurrent network that reads a text from its beginning.

    Args:
        unit: what a token is: ``"word"`` (what stands between white space; each line end is one too), ``"char"``, or
            ``"subword"`` (pieces of words, learnt from the text; nothing is unknown to them).
        vocab_size: V, at most so many tokens, the most frequent of the training text.
        cell: a name (``recurra cells`` lists them), a :class:`~recurra.Cell` class, or a callable ``(D, H) -> Cell``.
        hidden_size: H, units: one number, or one a layer.
        num_layers: L, recurrent layers; None where `hidden_size` gives one number a layer.
        embedding_size: D, the width of a token's vector.
        tied: score tokens by the matrix that embeds them (Press & Wolf, 2017); the last layer must then be D wide.
        dropout, input_dropout, output_dropout, embedding_dropout, weight_dropout: parts that training drops, between
            layers, of token vectors, of the last layer's outputs, of the vocabulary, and of the recurrent weights
            ``weight_hh``; each drawn once a chunk, for all of its frames (Merity et al., 2018).
        activation_penalty, temporal_penalty: times the mean square of outputs, and of their change from frame to frame.
        chunk: frames through which gradients run back; the state is carried on from one chunk to the next.
        batch_size: B, parts of the text that are read side by side.
        learning_rate, optimizer, weight_decay, clip, schedule, warmup, patience, accelerator,
        backward_memory: see :class:`recurra.train.settings.FitSettings`. The held-out loss decides which epoch is kept.
        max_epochs: at most that many passes over the training text.
        validation_fraction: the last part of the training text, held out where none is given; 0: none, and the last
            epoch is kept.
        random_state: an integer for the same weights each time; None for others; or a ``numpy.random.RandomState``.
        progress: show a bar and each epoch's figures on stderr.

    Attributes:
        network_: the fitted :class:`~recurra.tasks.language_network.LanguageNetwork`, with the best epoch's weights.
        tokenizer_: the vocabulary, :class:`recurra.data.Units`, from training text only.
        history_: the figures of each epoch, losses in nats a token. best_epoch_: the one that was kept, from 1.
        seed_: the seed that `random_state` came to.

    Example:
        >>> model = LanguageModel(unit="char", hidden_size=16, embedding_size=8, batch_size=8, random_state=0)
        >>> model = model.fit("to be or not to be\\n" * 100)
        >>> round(model.evaluate("not to be\\n")["perplexity"]) < len(model.tokenizer_)
        True
        >>> len("".join(model.generate("to ", length=10)))
        10
    """

    task = "language"
    monitor = "valid_loss"

    unit: str = "word"
    vocab_size: int = 10_000
    cell: Any = "lstm"
    hidden_size: Any = 200
    num_layers: int | None = 1
    embedding_size: int = 200
    tied: bool = False
    dropout: float = 0.0
    input_dropout: float = 0.0
    output_dropout: float = 0.0
    embedding_dropout: float = 0.0
    weight_dropout: float = 0.0
    activation_penalty: float = 0.0
    temporal_penalty: float = 0.0
    chunk: int = 35
    batch_size: int = 20
    learning_rate: float = 3e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    clip: float | None = 1.0
    schedule: str = "cosine"
    warmup: float = 0.02
    max_epochs: int = 10
    patience: int | None = 3
    validation_fraction: float = 0.1
    accelerator: str = "auto"
    backward_memory: str | int = "all"
    random_state: Any = None
    progress: bool = False

    def fit(
        self,
        text: str | Path | Iterable[str],
        *,
        validation: str | Path | Iterable[str] | None = None,
        run_dir: Path | str | None = None,
        resume: bool = False,
        overwrite: bool = False,
        notes: Mapping[str, Any] | None = None,
    ) -> Self:
        """Fit on a text, or on several one after the other.

        Under ``torchrun`` its processes train together: call it in each with the same text.

        Args:
            text: one, or several; each but the only one is brought to end with its line. A path is a text file. Memory
                holds neither texts nor tokens: a file or :class:`recurra.data.Texts` may be larger, and other
                iterables are read once.
            validation: held-out text, given so too; None: the last `validation_fraction` of the training text.
            run_dir: leave a run folder there: settings, weights, figures, checkpoints and a report.
            resume: go on with the run in `run_dir` from the end of its last epoch, or begin it where none has ended;
                data and settings must be the same, and the weights are then those of a run that was never stopped.
            overwrite: discard a run that `run_dir` already holds.
            notes: kept in the run's config, such as the name of the data.

        Raises:
            DataError: there is no text; see its subclasses. OptionError: a setting is out of range.
            UnknownNameError: no cell or unit has that name.
            RunFolderError: `run_dir` holds something already, or cannot be resumed.
            DivergedError: the loss became NaN or infinite. KeyboardInterrupt: stopped; the message says what is kept.
        """
        settings = self._begin()
        whole = joined(text)
        held = joined(validation, "validation text") if validation is not None else None
        data = fingerprint([whole], [held or ""])
        if validation is None and self.validation_fraction:
            whole, held = held_out(whole, plain(self.validation_fraction))
        sizes = {"characters": whole.characters, "validation_characters": held.characters if held else 0}
        self.about_ = self._about(data, sizes, notes)

        def job() -> Job:
            streams = lambda of, rows: Streams(
                self._ids(of), begin=self.tokenizer_.begin, batch_size=rows, chunk=plain(self.chunk)
            ).batches()
            return Job(
                NextToken(plain(self.activation_penalty), plain(self.temporal_penalty)),
                streams(whole, plain(self.batch_size)),
                streams(held, VALIDATION_STREAMS) if held else None,
                settings,
            )

        def record(folder: RunFolder) -> None:
            shown = held or whole.part(whole.offset(max(0, whole.characters - RECORDED)))
            self._record(folder, "held out" if held else "training", shown)

        return self._train(
            run_dir,
            resume=resume,
            overwrite=overwrite,
            learn=lambda: UNITS[self.unit].learn(whole.pieces(), plain(self.vocab_size)),
            job=job,
            record=record,
        )

    def evaluate(
        self, text: str | Path | Iterable[str] | Text, *, chunk: int | None = None, adapt: float = 0.0
    ) -> dict[str, Any]:
        """How well a text is foreseen, read from its first token to its last with the state carried on.

        Args:
            text: one, or several as `fit` takes them.
            chunk: frames that are scored at a time; it changes memory, and figures by rounding alone. None: 256, and
                those of training with `adapt`.
            adapt: learn from the text while it is read, by a step of gradient descent of this rate on each chunk that
                has been scored: dynamic evaluation (Krause et al., 2018). Each token is foreseen before it is learnt,
                but such figures are not those of a model that stays as it is. Gradients are scaled down to a norm of
                `clip`; the weights of this model stay. 0: nothing is learnt.

        Returns:
            ``perplexity``, ``nats_per_token``, ``bits_per_character``, and how many ``tokens``, ``characters`` and
            ``unknown`` tokens there are. Line ends are tokens, and each token counts, the first one too.

        Raises:
            NotFittedError: before `fit`. DataError: there is no text. OptionError: `chunk` or `adapt` is out of range.
            DivergedError: losses became NaN or infinite while it learnt.
        """
        self._require_fitted()
        if chunk is None:
            chunk = self.chunk if adapt else EVALUATION_CHUNK
        chunk, adapt = plain(chunk), plain(adapt)
        require_whole("chunk", chunk, least=1)
        require_number("adapt", adapt, least=0)
        whole = joined(text)
        network = copy.deepcopy(self.network_).eval() if adapt else self.network_.eval()
        device, unknown = next(network.parameters()).device, self.tokenizer_.unknown
        streams = Streams(self._ids(whole), begin=self.tokenizer_.begin, batch_size=1, chunk=chunk)
        state, tokens, strange, nats = None, 0, 0, 0.0
        with torch.set_grad_enabled(bool(adapt)):
            for at in streams.order():
                batch = streams[at]
                scores, state = network(batch["tokens"].to(device), state)
                targets = batch["targets"][0]
                losses = nn.functional.cross_entropy(scores[0], targets.to(device), reduction="none")
                nats += float(losses.detach().double().sum())
                if adapt and not math.isfinite(nats):
                    raise DivergedError(
                        "the model diverged while it learnt from the text",
                        received=f"adapt={adapt:g}, token {tokens:,}",
                        instead="a lower one",
                    )
                tokens += len(targets)
                strange += int((targets == unknown).sum()) if unknown is not None else 0
                if adapt:
                    state = detached(state)
                    _descend(network, losses.mean(), adapt, plain(self.clip))
        mean = nats / tokens
        return {
            "perplexity": math.exp(mean) if mean < 700 else math.inf,
            "nats_per_token": mean,
            "bits_per_character": nats / math.log(2) / whole.characters,
            "tokens": tokens,
            "characters": whole.characters,
            "unknown": strange,
        }

    def generate(
        self,
        prompt: str = "",
        length: int = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        weights: str | None = None,
    ) -> Iterator[str]:
        """Go on writing behind a prompt, token by token, in constant time and memory each.

        Args:
            prompt: what stands before; it begins a line. length: how many tokens.
            temperature: below 1 the likely ones are likelier still; 0: always the likeliest.
            top_k: draw among the likeliest k; None: among all.
            top_p: draw among the fewest likeliest ones that hold this part of the probability; None: among all.
            seed: the same gives the same text.
            weights: how the recurrent layers' are held: ``"float"``, ``"bfloat16"`` or ``"int8"``, see
                :class:`recurra.Stream`; None: as :func:`recurra.options` say.

        Yields:
            Pieces of text, one a token, spaces and line ends included: join them. The unknown token is never drawn.

        Raises:
            NotFittedError: before `fit`. OptionError: a value is out of range.
            DataError: characters of the prompt are not in the vocabulary, in a model of characters.
        """
        self._require_fitted()
        length, seed, temperature, top_k, top_p = map(plain, (length, seed, temperature, top_k, top_p))
        require_whole("length", length, least=0)
        require_seed(seed)
        require_sampling(temperature, top_k, top_p)
        require_characters(prompt, "the prompt")
        units: Units = self.tokenizer_
        ids = units.encode(prompt)
        if units.strict and (ids == units.unknown).any():
            unknown = sorted({character for character in prompt if character not in units.index})
            raise DataError(
                "the prompt holds characters that the training text does not",
                received=", ".join(map(repr, unknown[:8])),
                instead="others; the model has no notion of these",
            )
        draw = functools.partial(
            drawn,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            generator=torch.Generator().manual_seed(seed),
        )
        stream = self.network_.eval().recurrent.stream(weights=weights)
        begun = torch.tensor([[units.begin, *ids.tolist()]])
        return self._written(begun, stream, draw, units.writer(prompt), length)

    def _written(
        self, tokens: Tensor, stream: Stream, draw: Callable[[Tensor], int], write: Callable[[int], str], length: int
    ) -> Iterator[str]:
        device = next(self.network_.parameters()).device
        for _ in range(length):
            with torch.inference_mode():  # not around the yield: it would hold for the caller too
                y = stream.push(self.network_.vectors(tokens.to(device)))
                scores = self.network_.scores(y[:, -1])[0].cpu()
                if self.tokenizer_.unknown is not None:
                    scores[self.tokenizer_.unknown] = -math.inf
                token = draw(scores)
            tokens = torch.tensor([[token]])
            yield write(token)

    def record(self, run_dir: Path | str, split: str, text: str | Path | Iterable[str]) -> dict[str, Any]:
        """Evaluate on a text, add its figures to ``metrics.json``, and make ``report.html`` one about that text.

        Args:
            run_dir: the folder that this model was fitted in, or loaded from.
            split: the text's name, such as ``"test"``.
            text: as :meth:`evaluate` takes it.

        Returns:
            What :meth:`evaluate` returns.
        """
        return self._record(RunFolder(run_dir), split, text)

    def _record(self, folder: RunFolder, split: str, text: str | Path | Iterable[str] | Text) -> dict[str, Any]:
        from recurra.tasks.language_report import language_report

        figures = self.evaluate(text)
        if ranks.rank() == 0:
            self._write_figures(folder, split, figures)
            write_atomically(folder.report, language_report(self, split, figures))
        return figures

    def _ids(self, text: Text) -> Any:
        smallest = np.min_scalar_type(len(self.tokenizer_) - 1)
        return Stored([map(self.tokenizer_.encode, text.pieces())], smallest).values

    def _network(self) -> LanguageNetwork:
        options = {name: plain(getattr(self, name)) for name in NETWORK}
        if self.unit == "char" and not self.tied:
            options["initial_range"] = CHARACTER_RANGE
        return LanguageNetwork(len(self.tokenizer_), **options)

    def _read_tokenizer(self, folder: RunFolder) -> Units:
        try:
            found = units_of(read_json(folder.tokenizer))
        except DataError as error:
            raise RunFolderError(f"{folder.tokenizer} is damaged", received=str(error)[:500], instead=AGAIN) from error
        if found.name != self.unit:
            raise RunFolderError(
                f"{folder.tokenizer} is of another unit than the run", received=found.name, instead=self.unit
            )
        return found

    def _checked(self) -> FitSettings:
        require_name("unit", self.unit, UNITS)
        smallest = UNITS[self.unit].least
        for name, least in {"embedding_size": 1, "vocab_size": smallest, "chunk": 1, "batch_size": 1}.items():
            require_whole(name, plain(getattr(self, name)), least=least)
        for name in PARTS:
            require_number(name, plain(getattr(self, name)), least=0, below=1)
        for name in ("activation_penalty", "temporal_penalty"):
            require_number(name, plain(getattr(self, name)), least=0)
        if not isinstance(plain(self.tied), bool):
            raise OptionError("tied must be True or False", received=repr(self.tied))
        require_network(self, lambda: LanguageNetwork(3, **{name: plain(getattr(self, name)) for name in NETWORK}))
        return FitSettings.of(self)


def _descend(network: nn.Module, loss: Tensor, rate: float, clip: float | None) -> None:
    """One step of gradient descent, of the weights that the loss depends on."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    found = zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True)
    moved = [(weight, gradient) for weight, gradient in found if gradient is not None]
    norm = float(nn.utils.get_total_norm([gradient for _, gradient in moved]))
    with torch.no_grad():
        for weight, gradient in moved:
            weight.sub_(gradient, alpha=rate * (min(1.0, clip / norm) if clip and norm else 1.0))
