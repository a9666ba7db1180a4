"""JSON that every reader takes: without NaN and infinities, for which it has no words."""

import json
import math
from collections.abc import Mapping
from typing import Any


def strict_json(document: Any, *, indent: int | None = 1, ensure_ascii: bool = True) -> str:
    """A document as JSON, null for NaN and infinities.

    Example:
        >>> strict_json({"perplexity": float("inf"), "tokens": 3}, indent=None)
        '{"perplexity": null, "tokens": 3}'
    """
    return json.dumps(without_nan(document), indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)


def without_nan(value: Any) -> Any:
    """`value` with None for NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return value
