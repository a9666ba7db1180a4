"""From a cell to its staged step, once a cell."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from recurra.cells import Cell
from recurra.engine import shares
from recurra.engine.program import Program
from recurra.errors import UnderivableStepError
from recurra.shapes import Dim, dims
from recurra.steps.rewrites import FORWARD, apply
from recurra.steps.stages import stages
from recurra.steps.trace import Signature, trace
from recurra.steps.vjp import Backward, backward

Needs = tuple[frozenset[int], frozenset[int], frozenset[int]]


@dataclass(frozen=True)
class BackwardProgram:
    """The derivative of a step, ready to run."""

    step: Backward
    program: Program
    memo: dict[Any, Any] = field(default_factory=dict)  # what executors make of it, under keys of their own


@dataclass(frozen=True)
class Derived:
    """What the engine derives from a cell: its step as a program, and the derivative for what needs one."""

    forward: Program
    memo: dict[Any, Any] = field(default_factory=dict)  # what executors make of it, under keys of their own
    _backward: dict[Needs, BackwardProgram] = field(default_factory=dict)

    @cached_property
    def loop_weights(self) -> int:
        """How many numbers the matrices have that every frame reads."""
        return shares.loop_weights(self.forward.staged)

    @cached_property
    def team_weights(self) -> int:
        """How many numbers all matrices have, where no unit of the loop reads another: 0 elsewhere."""
        return shares.team_weights(self.forward.staged)

    def backward(self, inputs: frozenset[int], constants: frozenset[int], weights: frozenset[int]) -> BackwardProgram:
        """The backward step for these inputs, constants (by position) and weights (by node)."""
        needs = (inputs, constants, weights)
        if needs not in self._backward:
            step = backward(self.forward.staged, inputs=inputs, constants=constants, weights=weights)
            self._backward[needs] = BackwardProgram(step, Program(step.staged))
        return self._backward[needs]


@dataclass(frozen=True)
class _Found:
    """What was derived, and what its key knows by id: another object might get the id of one that is gone."""

    derived: Derived | UnderivableStepError
    held: tuple[Callable[[], Any], ...]

    def valid(self) -> bool:
        """Whether all of them are still there."""
        return all(one() is not None for one in self.held)


_CACHE: weakref.WeakKeyDictionary[Cell[Any], dict[Any, _Found]] = weakref.WeakKeyDictionary()
_KEPT = 8  # structures remembered of one cell: training and evaluation, and a few settings tried in turn


def derive(cell: Cell[Any]) -> Derived:
    """The derived step of a cell; derived anew when its settings, mode or weights' shapes change.

    Raises:
        UnderivableStepError: the step uses something outside of the vocabulary.
    """
    found = derivation(cell, *survey(cell))
    if isinstance(found, UnderivableStepError):
        raise found.with_traceback(None)
    return found


def derivation(
    cell: Cell[Any], leaves: dict[str, Tensor], structure: tuple[Any, ...], x: Tensor | None = None
) -> Derived | UnderivableStepError:
    """:func:`derive`, or why not, of a cell with its :func:`survey`; `x` decides the dtype where no weight does."""
    like = next((t for t in leaves.values() if t.is_floating_point()), x)
    if x is not None and like is x:
        structure = (*structure, x.dtype)
    known = _CACHE.setdefault(cell.origin, {})
    found = known.get(structure)
    if found is None or not found.valid():
        if len(known) >= _KEPT:
            known.pop(next(iter(known)))
        derived: Derived | UnderivableStepError
        try:
            derived = Derived(Program(stages(apply(_traced(cell, leaves, like), FORWARD))))
        except UnderivableStepError as refusal:
            derived = refusal.with_traceback(None)  # which holds values of the step
            derived.__context__ = None
        found = known[structure] = _Found(derived, _held(cell))
    return found.derived


def _traced(cell: Cell[Any], named: dict[str, Tensor], like: Tensor | None) -> Any:
    weights = {}
    for path, tensor in named.items():
        spec = cell._weight_specs.get(path)
        weights[path] = (tensor, dims(spec[0], cell.sizes) if spec else tuple(map(Dim, tensor.shape)))

    def pack(inputs: Any, state: Any, constants: Any) -> tuple[Any, ...]:
        x = inputs[0] if cell.Input is None else cell.Input(*inputs)
        return (x, cell.State(*state), *([cell.Constants(*constants)] if cell.Constants else []))

    with _nothing_cached():
        return trace(
            cell.step,
            Signature(cell.input_shapes, cell.state_shapes, cell.constant_shapes, weights),
            pack,
            owner=type(cell).__name__,
            dtype=torch.get_default_dtype() if like is None else like.dtype,
            device=torch.device("cpu") if like is None else like.device,
        )


@contextmanager
def _nothing_cached() -> Iterator[None]:
    """A block that neither reads nor fills the cache of ``torch.nn.utils.parametrize.cached()``."""
    before = parametrize._cache, parametrize._cache_enabled
    parametrize._cache, parametrize._cache_enabled = {}, 0
    try:
        yield
    finally:
        parametrize._cache, parametrize._cache_enabled = before


def leaves_of(cell: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by path, each name a shared one has."""
    return survey(cell)[0]


_PLAIN = (bool, int, float, str, type(None))
# Attributes of every Module and Cell: the machinery of torch, and what follows from the sizes.
_OWNED = frozenset(nn.Module().__dict__) - {"training"} | {
    *("_weight_specs", "_bound_from", "sizes", "state_shapes", "constant_shapes", "input_shapes"),
}
_DEPTH, _LENGTH = 4, 1000  # containers are compared by value so far; what is deeper or longer is compared by id


def _frozen(value: Any, depth: int = _DEPTH, other: Callable[[Any], Any] = id) -> Any:
    """A setting as something to compare: containers of plain values by value, what is not by what `other` makes."""
    if isinstance(value, _PLAIN):
        return value
    if depth and isinstance(value, list | tuple | dict | set | frozenset) and len(value) <= _LENGTH:
        inner = tuple(value.items()) if isinstance(value, dict) else value
        return (type(value), *(_frozen(v, depth - 1, other) for v in inner))
    if isinstance(value, Tensor):  # its numbers may not be read
        return (value.shape, value.dtype)
    return other(value)


def _held(cell: nn.Module) -> tuple[Callable[[], Any], ...]:
    """What :func:`survey` knows by id, weakly where that can be: it may know the cell, whose end would never come."""
    held: list[Callable[[], Any]] = []

    def hold(value: Any) -> None:
        try:
            held.append(weakref.ref(value))
        except TypeError:
            held.append(lambda: value)

    for module in cell.modules():
        for name, value in module.__dict__.items():
            if name not in _OWNED:
                _frozen(value, other=hold)
    return tuple(held)


def survey(cell: nn.Module) -> tuple[dict[str, Tensor], tuple[Any, ...]]:
    """:func:`leaves_of`, and what the graph of a step may depend on besides the numbers in them.

    Every scan asks for both; ``named_parameters()`` and ``modules()`` would take half of the time that planning takes.
    """
    parameters: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    structure: list[Any] = [torch.get_default_dtype()]
    for path, module in cell.named_modules(remove_duplicate=False):
        start = f"{path}." if path else ""
        for name, value in module.__dict__.items():
            if name not in _OWNED:
                structure.append((name, value if isinstance(value, _PLAIN) else _frozen(value)))
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        if any(hooks):  # their numbers are never given twice
            structure.append(tuple(map(tuple, hooks)))
        for found, kind in ((parameters, module._parameters), (buffers, module._buffers)):
            for name, tensor in kind.items():
                if tensor is not None:
                    found[start + name] = tensor
    leaves = parameters | buffers
    first: dict[int, str] = {}  # which leaves are one tensor decides what the graph reads
    structure += [(path, t.shape, t.dtype, first.setdefault(id(t), path)) for path, t in leaves.items()]
    return leaves, tuple(structure)
