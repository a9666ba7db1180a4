"""What a scan is asked to do, checked once, in one form for every executor."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from recurra.cells import Cell
from recurra.engine.derive import Derived, derivation, survey
from recurra.errors import LengthsError, NaNInputError, ResetError, UnderivableStepError

Leaves = tuple[Tensor, ...]


@dataclass(frozen=True)
class Request:
    """One scan: the cell, its inputs, and what is wanted."""

    cell: Cell[Any]
    x: Leaves  # each (T, B, ...)
    state: Leaves  # each (B, ...)
    constants: Leaves  # each (B, ...); empty where the cell declares none
    lengths: Tensor | None = None  # (B,) int64
    reset: Tensor | None = None  # (T, B) bool
    reverse: bool = False
    return_states: bool = False
    weights: str = "float"  # how matrices are to be held: see options.WEIGHTS
    look: bool = False  # for NaN in valid frames, on the CPU

    @property
    def T(self) -> int:
        """Frames."""
        return self.x[0].shape[0]

    @property
    def B(self) -> int:
        """Sequences."""
        return self.x[0].shape[1]

    @cached_property
    def followed(self) -> bool:
        """Whether its tensors are followed, so that their numbers are not there to be looked at."""
        return seen()

    @cached_property
    def _derivation(self) -> tuple[dict[str, Tensor], Derived | UnderivableStepError]:
        leaves, structure = survey(self.cell)
        if self.followed:  # what follows the leaves must not follow the derivation, nor be remembered with it
            with plainly():
                cell = self.cell.bound(_stand_ins(leaves))
                return leaves, derivation(cell, survey(cell)[0], structure, self.x[0])
        return leaves, derivation(self.cell, leaves, structure, self.x[0])

    @property
    def leaves(self) -> dict[str, Tensor]:
        """The cell's parameters and buffers by path, as they are now."""
        return self._derivation[0]

    @property
    def derivation(self) -> Derived | UnderivableStepError:
        """The cell's derived step, or why there is none."""
        return self._derivation[1]

    @property
    def derived(self) -> Derived:
        """The derived step of a cell that has one."""
        found = self.derivation
        assert not isinstance(found, UnderivableStepError)
        return found

    def step(self, x: Leaves, state: Leaves, constants: Leaves) -> tuple[Tensor, Leaves]:
        """One step of the cell, from leaves to leaves."""
        cell = self.cell
        arguments = (x[0] if cell.Input is None else cell.Input(*x), cell.State(*state))
        if cell.Constants is None:
            return cell.step(*arguments)
        return cell.step(*arguments, cell.Constants(*constants))

    def initial(self) -> Leaves:
        """What a reset puts in place of the state."""
        return tuple(self.cell.initial_state(self.B, like=self.x[0]))

    def replace(self, **changes: Any) -> "Request":
        """A copy with some fields changed."""
        return replace(self, **changes)


class Result(NamedTuple):
    """What a scan gives back, as leaves."""

    y: Tensor  # (T, B, ...) exactly zero past the lengths
    state: Leaves  # each (B, ...)
    states: Leaves | None  # each (T, B, ...), where asked for


def _stand_ins(leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the same shapes that nobody follows; what is shared stays shared."""
    made = {id(t): torch.empty(tuple(t.shape), dtype=t.dtype, device=t.device) for t in leaves.values()}
    return {path: made[id(t)] for path, t in leaves.items()}


def seen() -> bool:
    """Whether someone follows what becomes of tensors: a compiler, an exporter, a tracer, any mode of torch.

    Then numbers are not there to be looked at, and sizes may be symbols.
    """
    modes, script = torch._C._len_torch_dispatch_stack(), torch._C._get_tracing_state()
    return bool(modes) or torch.compiler.is_compiling() or script is not None


@contextmanager
def plainly() -> Iterator[None]:
    """A block that nobody follows, whoever follows what is around it."""
    modes = []
    with _disable_current_modes():
        while torch._C._len_torch_function_stack():
            modes.append(torch._C._pop_torch_function_stack())
        try:
            yield
        finally:
            for mode in reversed(modes):
                torch._C._push_on_torch_function_stack(mode)


def check_lengths(lengths: Any, T: int, B: int) -> Tensor | None:
    """`lengths` as int64, or an error that names the first sequence that does not fit. None: all have T frames."""
    instead = "integers of shape (B,), 0 <= lengths <= T, in any order"
    if not isinstance(lengths, Tensor):
        raise LengthsError("lengths must be a tensor", received=type(lengths).__name__, instead=instead)
    if lengths.dtype in (torch.bool,) or lengths.is_floating_point() or lengths.is_complex():
        raise LengthsError("lengths must be of an integer dtype", received=str(lengths.dtype), instead=instead)
    if tuple(lengths.shape) != (B,):
        raise LengthsError(f"lengths must be (B,) = ({B},)", received=str(tuple(lengths.shape)), instead=instead)
    return lengths if seen() else check_frames(lengths, T)  # the operator looks at the numbers when it runs


def check_frames(lengths: Tensor, T: int) -> Tensor | None:
    """The numbers of `lengths`, where :func:`check_lengths` has looked at the rest."""
    instead = "integers of shape (B,), 0 <= lengths <= T, in any order"
    lengths = lengths.long()  # in 8 bits T itself might be another number
    bad = ((lengths < 0) | (lengths > T)).nonzero()
    if bad.numel():
        b = int(bad[0])
        raise LengthsError(
            f"lengths must be between 0 and T = {T}", received=f"lengths[{b}] = {int(lengths[b])}", instead=instead
        )
    return None if (lengths == T).all() else lengths


def check_reset(reset: Any, T: int, B: int) -> Tensor:
    """`reset` as it is, or an error that says what does not fit."""
    if not isinstance(reset, Tensor) or reset.dtype != torch.bool or tuple(reset.shape) != (T, B):
        received = f"{tuple(reset.shape)}, {reset.dtype}" if isinstance(reset, Tensor) else type(reset).__name__
        raise ResetError(f"reset must be (T, B) = ({T}, {B}) and of dtype bool", received=received)
    return reset


def check_nan(x: Leaves, lengths: Tensor | None) -> None:
    """Raise where a valid frame holds NaN. A finite sum settles it in one pass; padding may hold anything."""
    if torch._C._are_functorch_transforms_active():
        return
    for leaf in x:
        if not leaf.is_cpu or math.isfinite((leaf.detach() if leaf.requires_grad else leaf).sum()):
            continue
        bad = leaf.detach().isnan()
        if lengths is not None:
            inside = torch.arange(leaf.shape[0])[:, None] < lengths.to(leaf.device)
            bad &= inside.reshape(*inside.shape, *[1] * (leaf.dim() - 2))
        if bad.any():
            t, b, *rest = bad.nonzero()[0].tolist()
            raise NaNInputError(
                "the input holds NaN",
                received=f"x[{', '.join(map(str, (t, b, *rest)))}] (frame {t} of sequence {b}) is NaN; "
                f"{int(bad.sum())} numbers are",
                instead="mend the data; recurra.options(check_nan=False) lets NaN through",
            )
