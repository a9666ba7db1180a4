"""Scans to compare: every way in which a scan can be asked for, drawn so that errors cannot hide."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recurra.cells import Cell
from recurra.engine import options, scan
from recurra.shapes import extent

MakeCell = Callable[[int, int], Cell[Any]]


@dataclass(frozen=True)
class Case:
    """Which arguments a scan is given."""

    name: str
    lengths: bool = False  # unsorted, some zero, padding full of NaN
    reset: bool = False
    reverse: bool = False
    return_states: bool = False
    state: bool = True  # an initial state that needs a gradient


CASES = (
    Case("plain"),
    Case("no_state", state=False),
    Case("reverse", reverse=True),
    Case("lengths", lengths=True),
    Case("lengths_reverse", lengths=True, reverse=True),
    Case("reset", reset=True),
    Case("reset_reverse", reset=True, reverse=True),
    Case("states", return_states=True),
    Case("everything", lengths=True, reset=True, return_states=True),
    Case("everything_reverse", lengths=True, reset=True, reverse=True, return_states=True),
)


def contracting(cell: Cell[Any], rng: torch.Generator) -> Cell[Any]:
    """Draw weights anew, small enough that errors fade instead of growing over time.

    Matrices have a spectral norm of about 0.6 a gate block, vectors a deviation of 0.1. A cell whose own draw matters
    (a divisor that must stay away from zero) is better given by a factory that sets it.
    """
    with torch.no_grad():
        for p in cell.parameters():
            scale = 0.3 / math.sqrt(p.shape[-1]) if p.dim() > 1 else 0.1
            p.copy_(torch.randn(p.shape, generator=rng, dtype=torch.float64) * scale)
    return cell


def moved(x: Tensor, dtype: torch.dtype, rng: torch.Generator) -> Tensor:
    """The same numbers, each moved by up to one rounding step of `dtype`."""
    return x * (1 + torch.finfo(dtype).eps * torch.randint(-1, 2, x.shape, generator=rng).to(x.dtype))


@dataclass(frozen=True)
class Scan:
    """Everything a scan needs, in float64 but rounded to the dtype under test, and the weights of a random loss."""

    cell: Cell[Any]
    x: tuple[Tensor, ...]
    state: Any
    constants: Any
    arguments: dict[str, Any]
    seed: int

    def results(self, executor: str, dtype: torch.dtype, save: str | int = "all") -> dict[str, Tensor]:
        """Outputs and all gradients under a random cotangent, by name, in `dtype`."""
        cell = copy.deepcopy(self.cell).to(dtype)
        leaf = lambda v: v.detach().to(dtype).requires_grad_() if v.is_floating_point() else v
        x, constants = tuple(map(leaf, self.x)), tuple(map(leaf, self.constants or ()))
        state = None if self.state is None else cell.State(*map(leaf, self.state))
        with options(executor=executor, save=save):
            outputs = scan(
                cell,
                x[0] if cell.Input is None else cell.Input(*x),
                state,
                constants=cell.Constants(*constants) if cell.Constants else None,
                **self.arguments,
            )
        named = {"y": outputs[0], **{f"last {k}": v for k, v in outputs[1]._asdict().items()}}
        if len(outputs) == 3:
            named |= {f"states {k}": v for k, v in outputs[2]._asdict().items()}
        rng = torch.Generator().manual_seed(self.seed)
        draw = lambda v: torch.randn(v.shape, generator=rng, dtype=torch.float64).to(dtype)
        loss = torch.stack([(v * draw(v)).sum().double() for v in named.values()]).sum()  # never ones: they hide signs
        leaves = {f"d x{k}": v for k, v in enumerate(x)}
        leaves |= {f"d constant {k}": v for k, v in enumerate(constants)}
        leaves |= {} if state is None else {f"d state {k}": v for k, v in state._asdict().items()}
        leaves |= {f"d {k}": v for k, v in cell.named_parameters()}
        leaves = {k: v for k, v in leaves.items() if v.requires_grad}
        reached = loss.requires_grad  # not where no frame ran from no state
        grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True) if reached else [None] * len(leaves)
        zeros = (torch.zeros_like(v) if g is None else g for g, v in zip(grads, leaves.values(), strict=True))
        return named | dict(zip(leaves, zeros, strict=True))

    def moved(self, seed: int, dtype: torch.dtype) -> "Scan":
        """The same scan, each number moved by up to one rounding step of `dtype`."""
        rng, cell = torch.Generator().manual_seed(seed), copy.deepcopy(self.cell)
        jog = lambda v: moved(v, dtype, rng)
        with torch.no_grad():
            for p in cell.parameters():
                p.copy_(jog(p))
        state = None if self.state is None else cell.State(*map(jog, self.state))
        return replace(self, cell=cell, x=tuple(map(jog, self.x)), state=state)


def make_scan(
    make: MakeCell,
    shape: Sequence[int],
    case: Case,
    dtype: torch.dtype = torch.float64,
    *,
    seed: int = 0,
    draw: Callable[[Cell[Any], torch.Generator], Any] = contracting,
) -> Scan:
    """Draw a scan of that shape (T, B, D, H) and case, of numbers that `dtype` can hold."""
    (T, B, D, H), rng = shape, torch.Generator().manual_seed(seed)
    random = lambda *s: torch.randn(*s, generator=rng, dtype=torch.float64).to(dtype).double()
    cell = make(D, H).double()
    draw(cell, rng)
    cell = cell.to(dtype).double()
    x = tuple(random(T, B, *extent(s)) for s in cell.input_shapes.values())
    constants = tuple(random(B, *extent(s)) for s in cell.constant_shapes.values())
    state = cell.State(*(random(B, *extent(s)) for s in cell.state_shapes.values())) if case.state else None
    arguments: dict[str, Any] = {"reverse": case.reverse, "return_states": case.return_states}
    if case.lengths:
        lengths = torch.randint(0, T + 1, (B,), generator=rng)
        if B > 2:  # the ends of the range, in no order
            lengths[0], lengths[1], lengths[-1] = T // 2, T, 0
        arguments["lengths"] = lengths
        for v in x:
            v[torch.arange(T)[:, None] >= lengths] = math.nan  # padding is never read
    if case.reset:
        arguments["reset"] = torch.rand(T, B, generator=rng) < 0.3
    return Scan(cell, x, state, constants, arguments, seed + 1)
