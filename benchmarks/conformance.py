"""The gate of the cells that only the benchmark knows: the suites that any author of a cell would run."""

from collections.abc import Iterator
from typing import Any

from benchmarks.cells import OWN, PARTS
from recurra.cells import Cell
from recurra.engine.derive import derive
from recurra.kernels.cpu import native
from recurra.steps.stages import Linearity
from recurra.testing import CellConformance, ExecutorConformance


def _maker(name: str) -> Any:
    return staticmethod(lambda D, H: OWN[name](PARTS.get(name, 0) * H or D, H))


def _linear(cell: Cell[Any]) -> bool:
    return derive(cell).forward.staged.linearity is Linearity.DIAGONAL


def _suites() -> Iterator[tuple[str, type, dict[str, Any]]]:
    for name in OWN:
        fields = {"make": _maker(name)}
        yield f"TestCell_{name}", CellConformance, fields
        yield f"TestStaged_{name}", ExecutorConformance, fields | {"executor": "staged"}
        if native() is not None:
            yield f"TestNative_{name}", ExecutorConformance, fields | {"executor": "native"}
        if _linear(fields["make"](2, 3)):
            yield f"TestAssociative_{name}", ExecutorConformance, fields | {"executor": "associative"}


for _name, _suite, _fields in _suites():
    globals()[_name] = type(_name, (_suite,), _fields)
