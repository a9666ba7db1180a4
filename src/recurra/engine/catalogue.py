"""Every cell of the table, with what the engine finds in it: what ``recurra cells`` and docs/cells.md show."""

import re
from dataclasses import asdict, dataclass
from inspect import getdoc
from typing import Any

from recurra.cells import CELLS
from recurra.engine.explain import explain
from recurra.shapes import show

WIDTH = 128  # D and H of the counts


@dataclass(frozen=True)
class Entry:
    """One cell.

    Attributes:
        name: in the table. kind: its class. about: what it is, in a line. paper: who wrote of it.
        state: leaf -> shape in letters. parameters: at D = H = 128.
        gemm_depth: how many matrix products wait for one another in a frame. linear: whether it is linear in its state.
        doc: the rest of its docstring up to the arguments: equations and remarks.
    """

    name: str
    kind: str
    about: str
    paper: str
    state: dict[str, str]
    parameters: int
    gemm_depth: int
    linear: bool
    doc: str

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)


def catalogue() -> list[Entry]:
    """All cells, in the order of the table.

    Example:
        >>> entry = catalogue()[1]
        >>> entry.name, entry.about, entry.state, entry.linear
        ('lstm', 'Long short-term memory', {'h': '(H)', 'c': '(H)'}, False)
    """
    entries = []
    for name, kind in CELLS.items():
        cell = kind(WIDTH, WIDTH)
        found = explain(cell)
        first, _, rest = (getdoc(kind) or "").partition("\n\n")
        about = re.match(r"([^(:]+)(?::[^(]*)?\(([^)]*)\)", first)
        assert about, f"the first line of {kind.__name__} must end with its paper in brackets"
        entries.append(
            Entry(
                name=name,
                kind=kind.__name__,
                about=about[1].strip().rstrip(","),
                paper=about[2],
                state={leaf: show(shape) for leaf, shape in cell.state_shapes.items()},
                parameters=sum(p.numel() for p in cell.parameters()),
                gemm_depth=found.gemm_depth,
                linear=found.linear.startswith("yes"),
                doc=rest.split("\n\nArgs:")[0],
            )
        )
    return entries
