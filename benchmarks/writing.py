"""``python -m benchmarks.writing``: what writes texts, trained and searched, against the same in plain torch.nn.

Each comparison is of the same weights on the same data in one process: first what both compute must agree, then their
times are taken in turn. ``--quick`` takes fewer of them.
"""

import copy
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import recurra
from benchmarks import gate
from benchmarks.figure import Figure
from benchmarks.machine import heading
from benchmarks.memory import resident
from benchmarks.timing import Times, interleaved
from benchmarks.torch_modules import TORCH_NN, Run, over_time, take
from recurra.data import docstring_pairs, learn_words
from recurra.data.units import UNITS
from recurra.tasks.beam import Hypothesis, beam_search
from recurra.tasks.language import NETWORK as LANGUAGE
from recurra.tasks.language import LanguageModel
from recurra.tasks.language_network import LanguageNetwork
from recurra.tasks.presets import LANGUAGE_PRESETS
from recurra.tasks.summary_network import Source, SummaryNetwork, Writing
from recurra.tasks.summary_presets import SUMMARY_PRESETS
from recurra.tasks.summary_rows import PairRows, read_source

ROOT = Path(__file__).parents[1]
CHARACTERS = 65  # of tinyshakespeare
SOURCES, BEAM, LONGEST = 64, 5, 20
BEFORE = 1000  # tokens, after which memory is to stay as it is


def in_turn(calls: Mapping[str, Callable[[], Any]], tokens: int, *, quick: bool) -> dict[str, Times]:
    """Their times, printed as tokens a second with quartiles."""
    times = interleaved(calls, rounds=5 if quick else 15, budget=10 if quick else 40)
    for name, one in times.items():
        slow, middle, fast = (tokens / seconds for seconds in reversed(one.quartiles))
        print(f"  {name:28} {middle:10,.0f} tokens a second ({slow:,.0f} to {fast:,.0f}; {len(one.seconds)} rounds)")
    return times


# --- the same layers of torch.nn --------------------------------------------------------------------------------------


def twin(layer: recurra.Recurrent, cell: str = "lstm") -> nn.RNNBase:
    """torch.nn's layers with the weights of ours."""
    made = TORCH_NN[cell](layer.input_size, layer.widths[0], len(layer.widths), bidirectional=layer.bidirectional)
    suffixes = [f"l{k}{way}" for k in range(len(layer.widths)) for way in ("", "_reverse")[: 1 + layer.bidirectional]]
    for suffix, one in zip(suffixes, layer.cells(), strict=True):
        take(made, dict(one.named_parameters()), suffix)
    return made


class Packed(nn.Module):
    """torch.nn's layers where a summariser has ours as its encoder."""

    def __init__(self, layer: recurra.Recurrent):
        super().__init__()
        self.lstm = twin(layer)

    def forward(self, x: Tensor, *, lengths: Tensor) -> tuple[Tensor, None]:
        """``(B, T, D)`` to ``(B, T, 2H)``."""
        return over_time(self.lstm, x.transpose(0, 1), lengths).transpose(0, 1), None


class Stepped(nn.Module):
    """torch.nn.LSTMCell where a summariser has ours in its decoder: what pushes frames through it as a stream does."""

    def __init__(self, layer: recurra.Recurrent):
        super().__init__()
        self.cell = nn.LSTMCell(layer.input_size, layer.widths[0])
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self.cell.load_state_dict({name: getattr(twin(layer), f"{name}_l0") for name in names})
        self.state: tuple[Tensor, ...] = ()

    def stream(self, batch: int) -> "Stepped":
        """Begin anew, with so many rows."""
        self.state = 2 * (torch.zeros(batch, self.cell.hidden_size),)
        return self

    def push(self, x: Tensor) -> Tensor:
        """A frame ``(B, D)``."""
        self.state = self.cell(x, self.state)
        return self.state[0]

    def select(self, rows: list[int]) -> None:
        """Go on with these rows."""
        self.state = tuple(leaf[rows] for leaf in self.state)


# --- the figures ------------------------------------------------------------------------------------------------------


def training(network: nn.Module, scores: Callable[[Tensor], Tensor], tokens: Tensor, targets: Tensor) -> Run:
    """A step of AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)  # so small that all steps are alike

    def step() -> dict[str, Tensor]:
        optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(scores(tokens).flatten(0, 1), targets.flatten())
        loss.backward()
        found = {"loss": loss.detach(), "gradient": network.get_parameter("embedding.weight").grad.clone()}
        optimizer.step()
        return found

    return step


def characters(*, quick: bool) -> Iterable[Figure]:
    """Training steps of tinyshakespeare's network, without its dropout, whose masks would differ."""
    preset = LANGUAGE_PRESETS["tinyshakespeare"]
    sizes = {name: preset[name] for name in LANGUAGE if name in preset and "dropout" not in name}
    torch.manual_seed(0)
    ours = LanguageNetwork(CHARACTERS, **sizes)
    theirs, layers = copy.deepcopy(ours), twin(ours.recurrent, preset["cell"])
    theirs.recurrent, layers.batch_first = layers, True
    ids = torch.randint(CHARACTERS, (preset["batch_size"], preset["chunk"] + 1))
    tokens, targets = ids[:, :-1], ids[:, 1:]
    calls = {
        "recurra": training(ours, lambda at: ours(at)[0], tokens, targets),
        "torch.nn": training(theirs, lambda at: theirs.head(layers(theirs.embedding(at))[0]), tokens, targets),
    }
    yield from compared("characters: training tokens a second", calls, tokens.numel(), bar=2.0, quick=quick)


def encoder(*, quick: bool) -> Iterable[Figure]:
    """The encoder that reads documentation strings, forward and backward."""
    network, source, x = reading(32)
    theirs, lengths = Packed(network.encoder), source.lengths
    dy = torch.randn(*x.shape[:2], network.encoder.output_size)

    def step(layer: nn.Module) -> Run:
        def run() -> dict[str, Tensor]:
            x.grad = None
            layer.zero_grad(set_to_none=True)
            y, _ = layer(x, lengths=lengths)
            y.backward(dy)
            assert x.grad is not None
            return {"y": y.detach(), "dx": x.grad}

        return run

    share, longest = lengths.sum() / x.shape[0] / x.shape[1], lengths.max()
    print(f"{len(x)} documentation strings of {lengths.min()} to {longest} words, {share:.0%} of all frames valid")
    calls = {"recurra": step(network.encoder), "torch.nn, packed": step(theirs)}
    told = "encoder of unequal lengths: training tokens a second"
    yield from compared(told, calls, int(lengths.sum()), bar=2.0, quick=quick)


def compared(told: str, calls: Mapping[str, Run], tokens: int, *, bar: float, quick: bool) -> Iterable[Figure]:
    """How many times as fast the first is as the second, once both give the same.

    Raises:
        AssertionError: they do not.
    """
    ours, theirs = calls
    wrong = gate.unequal(calls[theirs](), {ours: calls[ours]})
    assert not wrong, wrong
    times = in_turn(calls, tokens, quick=quick)
    yield Figure(told, times[theirs].median / times[ours].median, bar)


def beams(*, quick: bool) -> Iterable[Figure]:
    """A search for 64 sources, and one for each with torch.nn's layers; attention, scores and search are the same."""
    network, source, _ = reading(SOURCES)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(3)  # or all words would be about as probable
    theirs = copy.deepcopy(network)
    theirs.encoder = Packed(network.encoder)
    theirs.reader, theirs.writer = Stepped(network.reader), Stepped(network.writer)
    alone = [
        Source(source.tokens[k : k + 1, :n], source.extended[k : k + 1, :n], source.lengths[k : k + 1], source.unknown)
        for k, n in enumerate(source.lengths.tolist())
    ]

    @torch.inference_mode()
    def search(made: SummaryNetwork, sources: Source) -> list[list[Hypothesis]]:
        count = len(sources.lengths)
        return beam_search(Writing(made, sources, BEAM), count, BEAM, max_length=LONGEST, min_length=1, alpha=0.6)

    ours, loop = "recurra", "torch.nn, one by one"
    calls = {
        ours: lambda: search(network, source),
        loop: lambda: [hypotheses for one in alone for hypotheses in search(theirs, one)],
        "torch.nn, all together": lambda: search(theirs, source),
    }
    found = {name: [[one.words for one in hypotheses] for hypotheses in call()] for name, call in calls.items()}
    assert found[ours] == found[loop], "the searches find different texts"
    written = sum(len(hypotheses[0]) for hypotheses in found[ours])
    times = in_turn(calls, written, quick=quick)
    told = f"beam search, {BEAM} beams, {SOURCES} sources, against one by one"
    yield Figure(told, times[loop].median / times[ours].median, 3.0)


def endless(*, quick: bool) -> Iterable[Figure]:
    """What tokens written by a language model add to the memory of a process of its own."""
    count = 10_000 if quick else 100_000
    command = [sys.executable, "-m", "benchmarks.writing", "endless", str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    yield Figure(f"memory that {count:,} written tokens add", float(done.stdout), 1.0, "{:.2f} MiB", at_most=True)


def growth(count: int) -> float:
    """MiB by which this process grows while so many tokens are written, after the first thousand."""
    model = LanguageModel(unit="char", hidden_size=128, embedding_size=32)
    text = "What is written goes on and on, and nothing of it is kept.\n"
    model.tokenizer_ = UNITS["char"].learn([text], len(text))
    model.network_, model.best_epoch_ = model._network().eval(), 1
    written = model.generate(text, BEFORE + count)
    for _ in range(BEFORE):
        next(written)
    before, _ = resident()
    for _ in written:
        pass
    return resident()[0] - before


def reading(count: int) -> tuple[SummaryNetwork, Source, Tensor]:
    """A new summariser of the preset for documentation strings, some of these, and their vectors."""
    torch.manual_seed(0)
    most, pairs = SUMMARY_PRESETS["docstrings"]["max_source_tokens"], docstring_pairs(["stdlib"]).train
    at = torch.randperm(len(pairs))[:count].tolist()
    bodies, targets = [pairs.sources[k] for k in at], [(pairs.targets or [])[k] for k in at]
    split = lambda texts: [text.split() for text in texts]
    words = learn_words(split(bodies), split(targets), 12_000, min_count=1)
    table = PairRows([read_source(words, body, most) for body in bodies], None, len(words))
    source = table[[*range(count)]].source
    network = SummaryNetwork(12_000, cell="lstm", hidden_size=128, embedding_size=128)
    x = network.embedding(source.tokens).detach().requires_grad_()
    return network.eval(), source, x


PARTS: dict[str, Callable[..., Iterable[Figure]]] = {
    "characters": characters, "encoder": encoder, "beams": beams, "endless": endless,
}  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Print each bar, its figure, and whether it holds."""
    if arguments[:1] == ["endless"] and len(arguments) == 2:
        print(growth(int(arguments[1])))
        return
    print(heading())
    named = [one for one in arguments if one != "--quick"] or [*PARTS]
    for name in named:
        for figure in PARTS[name](quick="--quick" in arguments):
            print(figure, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
