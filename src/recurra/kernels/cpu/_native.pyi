"""The compiled machine: see module.cpp."""

from collections.abc import Sequence

from torch import Tensor

class Program:
    def __init__(self, **tables: object) -> None: ...

def run(
    program: Program,
    wide: int,
    sizes: Sequence[int],
    share_start: Sequence[int],
    order: Sequence[int],
    lengths: Sequence[int],
    reset: int,
    inputs: Sequence[int],
    outputs: Sequence[int],
    vectors: Sequence[int],
    matrices: Sequence[tuple[int, int, int]],
    state: Sequence[int],
    last: Sequence[int],
    initial: Sequence[int],
    caught: Sequence[int],
    added: Sequence[int],
    once: Sequence[int],
    tapes: Sequence[int],
    gradients: Sequence[int],
    /,
) -> None: ...
def stride(wide: int, width: int, /) -> int: ...
def empty_float(shape: Sequence[int], /) -> Tensor: ...
def empty_double(shape: Sequence[int], /) -> Tensor: ...
def held() -> int: ...
def used() -> int: ...
def trim() -> None: ...
def poison(on: bool, /) -> None: ...
def peak(wide: int, threads: int, /) -> float: ...
def target() -> str: ...
def targets() -> list[tuple[str, bool]]: ...
