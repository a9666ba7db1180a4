"""``report.html``: a training as one page that needs no other file and no network."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CSS = """
:root { color-scheme: light dark; --paper: #fbfbf9; --card: #ffffff; --ink: #22262b; --soft: #646b74; --line: #d9dcdf;
  --first: #3667b5; --second: #c2541f; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --card: #1d2126; --ink: #e6e8ea; --soft: #9aa2ab; --line: #3a4048; --first: #7fa9ec;
    --second: #f0935f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { margin: 0; font-size: 1.7rem; } h2 { margin: 0 0 .5rem; font-size: 1.15rem; }
.soft { color: var(--soft); } section { margin-top: 1.5rem; padding: 1.25rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .5rem; overflow-x: auto; }
.tiles { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 1.5rem; padding: 0; }
.tile { flex: 1 1 9rem; padding: .8rem 1.1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; }
.tile b { display: block; font-size: 1.6rem; font-weight: 600; font-variant-numeric: tabular-nums; }
svg { max-width: 100%; height: auto; } svg text { font-family: system-ui, sans-serif !important; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-weight: 600; } td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th.number { text-align: right; } td.text { overflow-wrap: anywhere; } td.word { white-space: nowrap; }
pre { margin: 0; font: .85rem/1.45 ui-monospace, monospace; }
"""

PLAN = "How this machine's processor runs the first recurrent layer, and why."
LONGEST_WORD = 24  # characters; a cell of a table with no more is kept on one line


@dataclass(frozen=True)
class Section:
    """A heading, a sentence that says how to read what follows, and HTML that is safe already."""

    heading: str
    body: str
    note: str = ""


def page(title: str, subtitle: str, tiles: Mapping[str, str], sections: Sequence[Section]) -> str:
    """The whole page.

    Args:
        title, subtitle: plain text.
        tiles: the figures that matter most: name -> value, plain text.
        sections: what follows them, in order.
    """
    shown = "".join(f'<div class="tile"><span class="soft">{_(k)}</span><b>{_(v)}</b></div>' for k, v in tiles.items())
    parts = []
    for section in sections:
        note = f'<p class="soft">{_(section.note)}</p>' if section.note else ""
        parts.append(f"<section><h2>{_(section.heading)}</h2>{note}{section.body}</section>")
    # The page asks for nothing from anywhere, and no text in it can make it.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{_(title)}</title><style>{CSS}</style>'
    )
    body = f'<h1>{_(title)}</h1><p class="soft">{_(subtitle)}</p><div class="tiles">{shown}</div>' + "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>{body}</main></body></html>\n'


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of plain values, escaped; numbers stand to the right."""
    numbers = [bool(rows) and _is_number(value) for value in (rows[0] if rows else header)]
    head = "".join(
        f"<th{' class=number' if right else ''}>{_(h)}</th>" for h, right in zip(header, numbers, strict=True)
    )
    body = "".join(f"<tr>{''.join(_cell(v) for v in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def preformatted(text: str) -> str:
    """Text as it stands, escaped."""
    return f"<pre>{_(text)}</pre>"


def flat(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows of a table.

    Example:
        >>> flat({"cell": "gru", "machine": {"threads": 2}})
        [('cell', 'gru'), ('machine.threads', '2')]
    """
    rows = []
    for key, value in document.items():
        rows += flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", str(value))]
    return rows


def _cell(value: Any) -> str:
    if _is_number(value):
        return (
            f'<td class="number">{value:,}</td>' if isinstance(value, int) else f'<td class="number">{value:.4f}</td>'
        )
    kind = "word" if len(str(value)) <= LONGEST_WORD else "text"
    return f'<td class="{kind}">{_(value)}</td>'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _(value: Any) -> str:
    """Text made safe to stand in HTML, also where it is not valid Unicode."""
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"))
