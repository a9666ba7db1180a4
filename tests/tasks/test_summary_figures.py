"""Figures of summaries: by hand, with intervals, beside baselines."""

import sys

import pytest

from recurra.errors import MissingDependencyError
from recurra.tasks.summarize import Summarizer
from recurra.tasks.summary_figures import first_sentence, scores, summary_figures
from recurra.tasks.summary_presets import SUMMARY_PRESETS

TEXTS = ["the cat sat on the mat", "a dog barked at us all night", "rain is falling on the town"]
REFERENCES = [[text] for text in TEXTS]


def test_rouge_by_hand():
    found = scores(["the cat sat", "dogs bark", "nothing"], REFERENCES)
    # precision 3/3, recall 3/6; stems of 2 words, 2 of 7; nothing
    one, two = 100 * 2 * 1 * 0.5 / 1.5, 100 * 2 * 1 * (2 / 7) / (1 + 2 / 7)
    assert found["rouge1"]["value"] == pytest.approx((one + two) / 3, abs=1e-3)
    assert found["rouge2"]["value"] == pytest.approx(
        (100 * 2 * 1 * (2 / 5) / (1 + 2 / 5) + 100 * 2 * (1 / 6) / (1 + 1 / 6)) / 3, abs=1e-3
    )
    assert found["rougeL"]["value"] == pytest.approx(found["rouge1"]["value"])


def test_what_equals_its_reference_has_all_there_is_to_have():
    found = scores(TEXTS, REFERENCES)
    assert {name: one["value"] for name, one in found.items()} == pytest.approx(dict.fromkeys(found, 100.0))
    assert all(one["low"] == one["high"] == pytest.approx(100) for one in found.values())
    assert scores(["x", "y", "z"], REFERENCES)["bleu"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_corpus_scores_are_sacrebleus():
    from sacrebleu import corpus_bleu, corpus_chrf

    written = ["the cat sat on a mat", "a dog barked at us", "rain is falling"]
    found = scores(written, REFERENCES)
    assert found["bleu"]["value"] == pytest.approx(corpus_bleu(written, [TEXTS]).score, abs=1e-3)
    assert found["chrf"]["value"] == pytest.approx(corpus_chrf(written, [TEXTS]).score, abs=1e-3)
    assert found["chrf"]["low"] < found["chrf"]["value"] < found["chrf"]["high"]


def test_of_several_references_the_one_with_the_highest_rouge_1_counts():
    from sacrebleu import corpus_bleu, corpus_chrf

    written = ["a b c d", "the dog barked"]
    # Of the first text "b a" shares two words, "a b x y z u" the pair too, with a lower ROUGE-1.
    references = [["x y", "b a", "a b x y z u"], ["a dog barked at us"]]
    found = summary_figures(written, references, ["One. Two."] * 2)
    best, alone = found["best_reference"], scores(written, [["b a"], references[1]])
    assert best["count"] == 4
    for name in ("rouge1", "rouge2", "rougeL"):
        assert best[name] == alone[name]
    assert best["rouge1"]["value"] > found["rouge1"]["value"]
    assert found["rouge1"] == scores(written, [["x y"], references[1]])["rouge1"]
    assert found["words"]["references"] == 3.5
    streams = [["x y", "a dog barked at us"], ["b a", None], ["a b x y z u", None]]
    assert best["bleu"]["value"] == pytest.approx(corpus_bleu(written, streams, force=True).score, abs=1e-3)
    assert best["chrf"]["value"] == pytest.approx(corpus_chrf(written, streams).score, abs=1e-3)
    assert "best_reference" not in summary_figures(written, [["x"], ["y"]], ["One."] * 2)


def test_texts_of_which_few_have_anything_in_common_with_their_references():
    found = scores(["a b c d e", "u", "v", "w"], [["a b c d e"], ["x"], ["y"], ["z"]])
    assert all(0 <= one["low"] < one["high"] <= 100 for one in found.values())


def test_baselines():
    sources = [f"{reference}. And more of it. And more." for reference in TEXTS]
    found = summary_figures(["x y"] * 3, REFERENCES, sources)
    assert found["baselines"]["lead"]["rouge1"]["value"] == pytest.approx(100)
    assert found["baselines"]["copy"]["rouge1"]["value"] < 90
    assert found["words"] == {"written": 2.0, "references": 6.33}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One."),
        ("No stop", "No stop"),
        ("A list, e.g. this one\nhere! Yes.", "A list, e.g. this one here!"),
        ("Parameters\n\nx: 1.0", "Parameters"),
        ("np.pad does. It.", "np.pad does."),
        ("  \n\n Late. x", "Late."),
    ],
)
def test_first_sentences(text, sentence):
    assert first_sentence(text) == sentence


@pytest.mark.parametrize("module", ["rouge_score.rouge_scorer", "sacrebleu.metrics.bleu"])
def test_without_the_packages_it_says_what_to_install(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r'not installed\n.*pip install "recurra\[tasks\]"'):
        scores(["a"], [["a"]])


@pytest.mark.parametrize("name", SUMMARY_PRESETS)
def test_presets_are_settings(name):
    Summarizer(**SUMMARY_PRESETS[name])._checked()
