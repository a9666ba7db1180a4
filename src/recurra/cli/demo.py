"""``recurra demo``: the main job from end to end, on texts that every installation has."""

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recurra.train.strict_json import strict_json

if TYPE_CHECKING:
    from recurra.data import TextTable

# Packages that come with Recurra's own dependencies: their documentation is read, learnt and compared within the few
# minutes that a demo may take on two cores.
PACKAGES = ["stdlib", "numpy", "scipy", "pandas", "sklearn", "matplotlib", "networkx"]
SETTINGS: dict[str, Any] = {
    "cell": "lstm",
    "hidden_size": 64,
    "num_layers": 1,
    "bidirectional": True,
    "embedding_size": 64,
    "vocab_size": 10_000,
    "max_tokens": 120,
    "pooling": "mean_max",
    "embedding_dropout": 0.3,
    "head_dropout": 0.3,
    "word_dropout": 0.1,
    "learning_rate": 4e-3,
    "schedule": "cosine",
    "batch_size": 64,
    "max_epochs": 8,
    "patience": None,
}


SUMMARIES = ["stdlib"]  # whose documentation is summarised


def demo(
    out: Annotated[Path | None, typer.Option(help="The run folder. Default: runs/demo.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same weights.")] = 0,
    skip: Annotated[list[str] | None, typer.Option(help="A part to leave out: classify, summarize.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object; progress stays on stderr.")] = False,
) -> None:
    """Learn to tell which package a piece of documentation is of, and to sum it up: some minutes, no network.

    The texts are the documentation of installed packages, read from their source; the models are a bidirectional LSTM,
    and a network that reads, writes and copies.

    [bold]Examples[/bold]

    recurra demo

    recurra demo --out runs/first --seed 1

    recurra demo --skip classify
    """
    from recurra.cli.inputs import free_run_folder
    from recurra.errors import UnknownNameError

    for name in skip or ():
        if name not in PARTS:
            raise UnknownNameError("part of the demo", name, PARTS)
    say: Callable[[str], None] = (lambda _: None) if json else lambda line: print(line, flush=True)
    began = time.perf_counter()
    place = out or free_run_folder("demo")
    result = {name: part(place, seed, say) for name, part in PARTS.items() if name not in (skip or ())}
    seconds = time.perf_counter() - began
    say(f"\ntime     {seconds / 60:.1f} minutes")
    if json:
        print(strict_json({**result, "seconds": round(seconds, 1)}, ensure_ascii=False))


def _classify(place: Path, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    from recurra.data.docstrings import docstrings
    from recurra.tasks.classify import TextClassifier

    say(f"reading the documentation of {', '.join(PACKAGES)}")
    splits = docstrings(packages=PACKAGES)
    train, valid, test = splits.train, splits.valid, splits.test
    assert valid
    assert test
    classes = sorted(set(train.labels or []))
    say(
        f"{len(train.texts):,} texts to learn from, {len(valid.texts):,} to choose by, {len(test.texts):,} to test with"
    )
    classifier = TextClassifier(**SETTINGS, random_state=seed, progress=True)
    notes = {"data": "docstrings", "packages": PACKAGES, "corpus_fingerprint": splits.fingerprint}
    held_out = (valid.texts, valid.labels or [])
    classifier.fit(train.texts, train.labels or [], validation=held_out, run_dir=place, notes=notes)
    figures = classifier.record(place, "test", test.texts, test.labels or [])
    compared = {
        "most frequent class": _most_frequent(train, test),
        "TF-IDF, logistic regression": _bag_of_words(train, test),
    }
    compared["LSTM (this run)"] = figures["accuracy"]
    say("\naccuracy on test texts")
    for name, accuracy in sorted(compared.items(), key=lambda item: item[1]):
        say(f"  {accuracy:6.1%}  {name}")
    say("\nthree texts it has not seen")
    shown = _shown(test, classes)
    answers = []
    for row, p in zip(shown, classifier.predict_proba([test.texts[i] for i in shown]), strict=True):
        label, truth = str(classifier.classes_[p.argmax()]), (test.labels or [])[row]
        text = " ".join(test.texts[row].split())
        answers.append({"text": text, "label": label, "confidence": round(float(p.max()), 4), "true": truth})
        say(f"  {label} ({p.max():.0%}; it is {truth}): {text[:90]}…")
    say(f"\nreport   {place / 'report.html'}")
    say(f"next     {shlex.join(['recurra', 'predict', str(place), 'Return the eigenvalues of a symmetric matrix.'])}")
    return {"run": str(place), "accuracy": compared, "answers": answers, "test": figures}


def _summarize(place: Path, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    from recurra.data import docstring_pairs
    from recurra.tasks.summarize import Summarizer
    from recurra.tasks.summary_presets import SUMMARY_PRESETS

    place = place.with_name(f"{place.name}-summaries")
    splits = docstring_pairs(packages=SUMMARIES)
    train, valid, test = splits.train, splits.valid, splits.test
    assert valid
    assert test
    say(f"\nlearning to sum up what {len(train):,} docstrings of Python's standard library say below their first line")
    model = Summarizer(**SUMMARY_PRESETS["demo"], random_state=seed, progress=True)
    notes = {"data": "docstrings", "packages": SUMMARIES, "corpus_fingerprint": splits.fingerprint}
    held_out = (valid.sources, valid.targets or [])
    model.fit(train.sources, train.targets or [], validation=held_out, run_dir=place, notes=notes)
    figures = model.record(place, "test", test.sources, test.targets or [])
    lead = figures["baselines"]["lead"]
    say("\nROUGE-1 and ROUGE-L on test texts")
    for name, found in {"first sentence": lead, "this run": figures}.items():
        say(f"  {found['rouge1']['value']:5.1f}  {found['rougeL']['value']:5.1f}  {name}")
    rows = sorted(range(len(test)), key=lambda i: abs(len(test.sources[i].split()) - 40))[:3]
    written = model.predict([test.sources[i] for i in rows])
    say("\nthree texts it has not seen")
    answers = []
    for row, said in zip(rows, written, strict=True):
        source, truth = " ".join(test.sources[row].split()), (test.targets or [])[row]
        answers.append({"text": source, "summary": said, "true": truth})
        say(f"  {source[:90]}…\n    it says {said!r}; its author {truth!r}")
    say(f"\nreport   {place / 'report.html'}")
    return {"run": str(place), "answers": answers, "test": figures}


# name -> what it does: in its run folder, with a seed, saying how it goes; what it found
PARTS: dict[str, Callable[[Path, int, Callable[[str], None]], dict[str, Any]]] = {
    "classify": _classify,
    "summarize": _summarize,
}


def _most_frequent(train: "TextTable", test: "TextTable") -> float:
    from sklearn.dummy import DummyClassifier

    return float(DummyClassifier().fit(train.texts, train.labels).score(test.texts, test.labels))


def _bag_of_words(train: "TextTable", test: "TextTable") -> float:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, min_df=2), LogisticRegression(C=10, max_iter=200))
    return float(model.fit(train.texts, train.labels).score(test.texts, test.labels))


def _shown(test: "TextTable", classes: list[str]) -> list[int]:
    """Rows of three test texts, each of another class: of each the one nearest to forty words."""
    labels, words = test.labels or [], [len(text.split()) for text in test.texts]
    chosen = classes[:: max(1, len(classes) // 3)][:3]
    return [min((i for i, c in enumerate(labels) if c == name), key=lambda i: abs(words[i] - 40)) for name in chosen]
