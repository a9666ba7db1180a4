"""Which part of the package imports which: read from the source, held against the directions of the design."""

import ast
from collections.abc import Iterator
from pathlib import Path

import recurra

# One way, downwards. A part may import those of the rows below its own, never its neighbours or those above.
ROWS = (
    ("cli",),
    ("search", "serve", "diagnose", "tasks"),
    ("train", "data", "layers"),
    ("engine",),
    ("kernels",),
    ("steps",),
    ("shapes", "errors"),
)
CELLS_FOR = {"engine", "layers", "tasks", "search", "diagnose", "cli"}

MAY: dict[str, set[str]] = {
    part: {low for row in ROWS[k + 1 :] for low in row} | ({"cells"} if part in CELLS_FOR else set())
    for k, row in enumerate(ROWS)
    for part in row
}
MAY["shapes"] = {"errors"}
MAY["cells"] = {"shapes", "errors"}
MAY["testing"] = {*MAY, "testing"} - {"cli"}
MAY["__main__"] = {"cli"}  # ``python -m recurra`` is the command line
MAY["__init__"] = {*MAY} - {"cli", "__main__"}  # names for type checkers; at run time it is lazy


def part_of(module: str) -> str:
    """``recurra.engine.scan`` belongs to ``engine``, the public name ``recurra.scan`` to the part that defines it."""
    name = module.split(".")[1] if "." in module else "__init__"
    return recurra._NAMES.get(name, name)


def imports_of(path: Path, package: str) -> Iterator[tuple[int, str]]:
    """``(line, module)`` of each import of the package's own, at the top of the file or inside of a function."""
    folders = package.split(".")
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):  # of ``import recurra``, what is taken from it counts
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name != "recurra")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "recurra":
            yield node.lineno, f"recurra.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(folders[: len(folders) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names = [f".{alias.name}" for alias in node.names] if module == "recurra" else [""]
            yield from ((node.lineno, module + name) for name in names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def violations(source: Path) -> list[str]:
    """What breaks the directions below `source`, the folder ``recurra``: ``file:line: part imports module``."""
    found = []
    for path in sorted(source.rglob("*.py")):
        inside = path.relative_to(source)
        part = inside.parts[0].removesuffix(".py")
        package = ".".join(("recurra", *inside.parts[:-1]))
        for line, module in imports_of(path, package):
            if module.split(".")[0] != "recurra" or module == "recurra.__version__":
                continue
            other = part_of(module)
            if other != part and other not in MAY[part]:
                found.append(f"{inside.as_posix()}:{line}: {part} imports {module}")
    return found
