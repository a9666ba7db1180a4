"""Bring what can be derived in the pages up to date: ``python docs/refresh.py``. A test holds that nothing is to do.

- ``docs/errors.md`` is made from the docstrings of ``recurra.errors``.
- Blocks marked ``python`` are run, page by page, in one namespace; a block marked ``text`` right after one is what it
  printed.
- A comment ``source: FILE NAME NAME …`` puts the source of these names into the block of Python below it.
"""

import ast
import contextlib
import inspect
import io
import linecache
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = tuple(sorted((*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))))
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_SOURCE = re.compile(r"<!-- source: (\S+) ([\w ]+) -->\n\n$")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """``(language, code)`` of each fenced block of a page."""
    return ((m[1], m[2]) for m in _BLOCK.finditer(text))


def source_of(path: str, names: list[str]) -> str:
    """The imports of a file, and the source of its classes and functions `names`."""
    text = (ROOT / path).read_text("utf-8")
    imports = [ast.unparse(node) for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {node.name: ast.get_source_segment(text, node) for node in ast.parse(text).body if hasattr(node, "name")}
    return "\n\n\n".join(["\n".join(imports), *(found[name] for name in names)]) + "\n"


def refreshed(text: str, name: str) -> str:
    """A page with its sources and its outputs as they are now."""
    namespace: dict[str, object] = {"__name__": "__page__"}
    parts, end, printed = [], 0, ""
    for block in _BLOCK.finditer(text):
        between = text[end : block.start()]
        language, code = block.groups()
        if language == "python":
            marker = _SOURCE.search(between)
            code = source_of(marker[1], marker[2].split()) if marker else code
            into, file = io.StringIO(), f"{name}, a block of Python"
            linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)  # for errors that quote it
            with contextlib.redirect_stdout(into):
                exec(compile(code, file, "exec"), namespace)
            printed = into.getvalue()
        elif language == "text" and printed and between.strip() == "":
            code = "\n".join(line.rstrip() for line in printed.splitlines()) + "\n"
        if language != "python":
            printed = ""
        parts += [between, f"```{language}\n{code}```"]
        end = block.end()
    return "".join([*parts, text[end:]])


def errors_page() -> str:
    """``docs/errors.md``: one section a class, nearest first below the class it belongs to."""
    from recurra import errors

    rows = [
        "# Errors",
        "<!-- Made from src/recurra/errors.py by docs/refresh.py: change it there. -->",
        "Every error of Recurra is a `RecurraError`, and the builtin that it most resembles too. A message says what "
        "is wrong, what was received, what to do instead, and where on this page to read more. On the command line it "
        "is printed without a traceback, and the exit code is 2; `RECURRA_DEBUG=1` shows the traceback.",
    ]
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.RecurraError):
            said = re.split(r"\n\nExample:", inspect.getdoc(kind) or "")[0].replace("``", "`")
            bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
            rows += [f'<a id="{name}"></a>', f"## {name}", f"A kind of {bases}.", said]
    return "\n\n".join(rows) + "\n"


def cells_page() -> str:
    """``docs/cells.md``: the catalogue, from the table of cells and their docstrings."""
    from recurra.cells import WRAPPERS
    from recurra.engine.catalogue import WIDTH, catalogue

    entries = catalogue()
    rows = [
        "# Cells",
        "<!-- Made from the docstrings in src/recurra/cells by docs/refresh.py: change it there. -->",
        "Every cell by the name that `recurra.Recurrent` and the command line take. `GEMMs in a row`: how many matrix "
        "products wait for one another in a frame. `Linear`: in its state, so that it can run in parallel over time. "
        f"Parameters are those of D = H = {WIDTH}.",
        "\n".join(
            [
                "| name | what it is | state | parameters | GEMMs in a row | linear |",
                "|---|---|---|---:|---:|---|",
                *(
                    f"| [`{e.name}`](#{e.kind.lower()}) | {e.about} | {_states(e.state)} | {e.parameters:,} "
                    f"| {e.gemm_depth} | {'yes' if e.linear else ''} |"
                    for e in entries
                ),
            ]
        ),
    ]
    for e in entries:
        rows += [f"## {e.kind}", f"`{e.name}`: {e.about}. {e.paper}.", _markdown(e.doc), f"State: {_states(e.state)}."]
    rows += [
        "# Around a cell",
        "Each takes a cell and gives a cell, so they stack: `residual(zoneout(LSTMCell(D, D), 0.1))`. In layers: "
        "`recurra.Recurrent(lambda D, H: recurra.zoneout(recurra.LSTMCell(D, H), 0.1), 40, 256)`. "
        "`recurra.chrono(module, longest=…)` sets how long units remember at first.",
    ]
    for name, wrap in WRAPPERS.items():
        said = re.split(r"\n\nArgs:", inspect.getdoc(wrap) or "")[0]
        rows += [f"## {name}", f"`{name}{inspect.signature(wrap)}`".replace("recurra.cells.base.", ""), _markdown(said)]
    return "\n\n".join(rows) + "\n"


def _states(state: dict[str, str]) -> str:
    return ", ".join(f"`{leaf} {shape}`" for leaf, shape in state.items())


def _markdown(text: str) -> str:
    """reStructuredText of a docstring as Markdown: mathematics, roles and literals."""
    text = re.sub(r":math:`([^`]*)`", r"$`\1`$", text)
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`")
    fence = lambda m: f"```math\n{_aligned(inspect.cleandoc(m[1]))}\n```\n"
    return re.sub(r"\.\. math::\n((?:    .*\n?)+)", fence, text).strip()


def _aligned(equations: str) -> str:
    """Several lines under one another, as Sphinx sets them."""
    return f"\\begin{{aligned}}\n{equations}\n\\end{{aligned}}" if "&=" in equations else equations


MADE = {"errors.md": errors_page, "cells.md": cells_page}


def main() -> None:
    """Write what has changed, and say which pages."""
    for name, page in MADE.items():
        (ROOT / "docs" / name).write_text(page(), "utf-8")
    for page in PAGES:
        text = page.read_text("utf-8")
        new = refreshed(text, page.name)
        if new != text:
            page.write_text(new, "utf-8")
            print(f"changed {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
