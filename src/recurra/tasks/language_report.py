"""The report of a language model: what :mod:`recurra.train.report` shows of it."""

import math
from typing import TYPE_CHECKING, Any

from recurra.engine import explain
from recurra.train.pictures import curves
from recurra.train.report import PLAN, Section, flat, page, preformatted, table

if TYPE_CHECKING:
    from recurra.tasks.language import LanguageModel

SAMPLES = (0.5, 0.8, 1.0)  # temperatures
SAMPLE = 800  # characters, at most as many tokens


def language_report(model: "LanguageModel", split: str, figures: dict[str, Any]) -> str:
    """The page of a fitted language model.

    Args:
        split: what the figures are of: ``"test"``, ``"held out"`` or ``"training"``.
        figures: of :meth:`recurra.tasks.LanguageModel.evaluate`.
    """
    given = model.about_["data"]["characters"]
    weights = sum(p.numel() for p in model.network_.parameters())
    perplexities = [
        {**epoch, **{k.replace("loss", "perplexity"): _perplexity(v) for k, v in epoch.items() if "loss" in k}}
        for epoch in model.history_
    ]
    plan = explain(model.network_.recurrent, T=int(model.chunk), B=int(model.batch_size))
    return page(
        "Language model",
        f"{len(model.tokenizer_):,} {model.unit}s, learnt from {given:,} characters; "
        f"figures on {figures['tokens']:,} {split} tokens",
        {
            f"{split} perplexity": f"{figures['perplexity']:.2f}",
            "nats a token": f"{figures['nats_per_token']:.4f}",
            "bits a character": f"{figures['bits_per_character']:.3f}",
            "weights": f"{weights:,}",
            "kept epoch": f"{model.best_epoch_} of {len(model.history_)}",
            "trained for": f"{model.about_.get('seconds', 0.0) / 60:.1f} min",
        },
        [
            Section(
                "Training",
                curves(perplexities, model.best_epoch_),
                "Losses in nats a token. Those of training are with dropout and penalties, and while weights change.",
            ),
            *(
                Section(f"A sample at temperature {temperature}", preformatted(_sample(model, temperature)))
                for temperature in SAMPLES
            ),
            Section("The plan", preformatted(str(plan)), PLAN),
            Section("Settings and machine", table(["name", "value"], flat({**model.settings(), **model.about_}))),
        ],
    )


def _perplexity(loss: float | None) -> float:  # None: it was not finite
    return math.nan if loss is None else math.exp(min(loss, 50))


def _sample(model: "LanguageModel", temperature: float) -> str:
    text = ""
    for piece in model.generate(length=SAMPLE, temperature=temperature):
        text += piece
        if len(text) >= SAMPLE:
            break
    return text
