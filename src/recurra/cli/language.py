"""A language model's part of ``recurra evaluate`` and ``predict``."""

import sys
from pathlib import Path
from typing import Any

from recurra.train.strict_json import strict_json

DIAGNOSED = 16, 256  # pieces of the text, and tokens of each


def evaluate_language(
    run: Path,
    data: str | None,
    text: str | None,
    data_dir: Path | None,
    weights: str | None,
    adapt: float | None,
    json: bool,
) -> None:
    """Perplexity, nats a token and bits a character of a text."""
    from recurra.cli.inputs import JUDGED, data_of, judged
    from recurra.cli.train_language import described
    from recurra.data import load_text
    from recurra.engine import options
    from recurra.errors import OptionError
    from recurra.tasks.language import LanguageModel

    if adapt and weights == "int8":
        raise OptionError(
            "weights in int8 do not learn", received=f"--adapt {adapt:g}", instead="--weights bfloat16, or float"
        )
    model = LanguageModel.load(run)
    named, chosen = data_of(model, run, data, text=text, data_dir=data_dir)
    table, part = judged(model, data, load_text(named, **chosen), text)
    with options(weights=weights or "float"):
        figures = model.evaluate(table.texts, adapt=adapt or 0.0)
    if json:
        print(strict_json({"run": str(run), "data": table.source, "part": part, "adapt": adapt or 0.0, **figures}))
        return
    learning = f", learning from it at {adapt:g}" if adapt else ""
    print(f"{table.source}{JUDGED[part]}{learning}: {described(figures)}")
    if figures["unknown"]:
        print(f"{figures['unknown']:,} of the tokens are <unk>, the unknown one")


def predict_language(
    run: Path,
    texts: str,
    weights: str | None,
    length: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    json: bool,
) -> None:
    """Write on from a prompt, each token as soon as it is there."""
    from recurra.cli.inputs import require_utf8
    from recurra.data.records import decoded_lines
    from recurra.tasks.language import LanguageModel

    given = decoded_lines(sys.stdin.buffer, "standard input") if texts == "-" else [require_utf8(texts, "the prompt")]
    prompt = "".join(given)
    model = LanguageModel.load(run)
    pieces = model.generate(
        prompt,
        200 if length is None else length,
        temperature=1.0 if temperature is None else temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed or 0,
        weights=weights,
    )
    units = model.tokenizer_
    if not units.strict and (strange := int((units.encode(prompt) == units.unknown).sum())):
        print(f"{strange:,} words of the prompt are unknown, and read as <unk>", file=sys.stderr)
    if json:
        print(strict_json({"prompt": prompt, "text": "".join(pieces)}, ensure_ascii=False))
        return
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def diagnose_language(run: Path, data: str | None, text: str | None, data_dir: Path | None, seed: int) -> Any:
    """The diagnosis of a language model on pieces of its text."""
    import torch

    from recurra.cli.inputs import data_of
    from recurra.data import load_text
    from recurra.diagnose import diagnose
    from recurra.tasks.given import joined
    from recurra.tasks.language import LanguageModel

    model = LanguageModel.load(run)
    named, chosen = data_of(model, run, data, text=text, data_dir=data_dir)
    splits = load_text(named, **chosen)
    rows, length = DIAGNOSED
    whole = joined((splits.test or splits.train).texts)
    ids = torch.from_numpy(model.tokenizer_.encode(str(whole.part(0, whole.offset(16 * rows * length)))))
    length = min(length, len(ids))
    pieces = ids[: min(rows, len(ids) // length) * length].view(-1, length)
    return diagnose(model.network_, pieces, seed=seed)
