"""Who is measured: ways to run one case in this process, all with the same weights and inputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import recurra
from benchmarks.cases import ONE_THREAD, OUR_LSTM, PADDED, ROUNDED, Case
from benchmarks.cells import ALL
from benchmarks.torch_modules import TORCH_NN, Run, measured, module_for, over_time
from recurra.cells import Cell
from recurra.engine import EXECUTORS
from recurra.engine.scan import make_request


@dataclass(frozen=True)
class Material:
    """The numbers of one case: drawn once, given to every contender."""

    case: Case
    cell: Cell[Any]
    x: Tensor  # (T, B, D)
    dy: Tensor  # (T, B, ...) the cotangent of the output: random, never ones
    lengths: Tensor | None  # (B,)

    def to(self, dtype: torch.dtype) -> "Material":
        """The same numbers in another dtype; the cell itself is moved."""
        x = self.x.detach().to(dtype).requires_grad_(self.case.train)
        return Material(self.case, self.cell.to(dtype), x, self.dy.to(dtype), self.lengths)

    @cached_property
    def frames(self) -> int:
        """The valid ones."""
        return self.case.T * self.case.B if self.lengths is None else int(self.lengths.sum())

    @property
    def flops(self) -> int:
        """Of the matrix products, on valid frames: 2 a weight forward; as many again for dx and for dW."""
        weights = sum(p.numel() for p in self.cell.parameters() if p.dim() > 1)
        return self.frames * weights * 2 * (3 if self.case.train else 1)

    @property
    def bytes(self) -> int:
        """What any forward pass must move at least: inputs read and outputs written, on valid frames."""
        return self.frames * (self.case.D + math.prod(self.dy.shape[2:])) * self.x.element_size()

    def arrays(self) -> dict[str, Any]:
        """All of it, to be sent to another process."""
        given = {"x": self.x, "dy": self.dy, **{f"w.{name}": w for name, w in self.cell.named_parameters()}}
        given |= {} if self.lengths is None else {"lengths": self.lengths}
        return {name: value.detach().numpy() for name, value in given.items()}


def draw(case: Case, seed: int = 0) -> Material:
    """Weights as the cell initialises itself, unit normal inputs."""
    torch.manual_seed(seed)
    cell = ALL[case.cell](case.D, case.H)
    x = torch.randn(case.T, case.B, case.D, requires_grad=case.train)
    with torch.no_grad():
        width = cell(x[0])[0].shape[1:]
    lengths = torch.randint(max(1, case.T // 16), case.T + 1, (case.B,)) if case.ragged else None
    return Material(case, cell, x, torch.randn(case.T, case.B, *width), lengths)


# --- Recurra ----------------------------------------------------------------------------------------------------------


def _scan(name: str, material: Material, lengths: Tensor | None) -> Run | str:
    """A scan on the executor of that name."""
    refusal = EXECUTORS[name].refusal(make_request(material.cell, material.x, lengths=lengths))

    def forward() -> Tensor:
        with recurra.options(executor=name):
            y, _ = recurra.scan(material.cell, material.x, lengths=lengths)
        return y

    return refusal or measured(material.cell, material.x, material.dy, forward, train=material.case.train)


def rounded(run: Run | str) -> Run | str:
    """The same call, with matrices in bfloat16."""
    if isinstance(run, str):
        return run

    def call() -> dict[str, Tensor]:
        with recurra.options(weights="bfloat16"):
            return run()

    return call


def _by_executor(name: str) -> Callable[[Material], Run | str]:
    return lambda material: _scan(name, material, material.lengths)


def one_thread(run: Run | str) -> Run | str:
    """The same call, with one thread for as long as it takes."""
    if isinstance(run, str):
        return run

    def call() -> dict[str, Tensor]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return run()
        finally:
            torch.set_num_threads(threads)

    return call


# --- what one would use without it ------------------------------------------------------------------------------------


def _eager_loop(material: Material) -> Run | str:
    """The loop that one writes by hand: a step a frame, masked where sequences have ended."""
    cell, x, lengths = material.cell, material.x, material.lengths

    def forward() -> Tensor:
        state, outputs = cell.initial_state(x.shape[1], like=x), []
        for t, frame in enumerate(x.unbind(0)):
            y, after = cell.step(frame, state)
            if lengths is not None:
                valid = (t < lengths)[:, None]
                y = torch.where(valid, y, 0.0)
                after = type(state)(*(torch.where(valid, new, old) for new, old in zip(after, state, strict=True)))
            outputs.append(y)
            state = after
        return torch.stack(outputs)

    return measured(cell, x, material.dy, forward, train=material.case.train)


def _torch_nn(material: Material) -> Run | str:
    """The module of torch.nn, by pack_padded_sequence where sequences have lengths."""
    if material.case.cell not in TORCH_NN:
        return f"torch.nn has no {material.case.cell}"
    module = module_for(material.case.cell, dict(material.cell.named_parameters()))
    forward = lambda: over_time(module, material.x, material.lengths)
    return measured(module, material.x, material.dy, forward, train=material.case.train)


# name -> prepare(material): a call to measure, or the sentence that says why there is none
CONTENDERS: dict[str, Callable[[Material], Run | str]] = {
    "recurra native": _by_executor("native"),
    "recurra torch": _by_executor("torch"),
    "recurra associative": _by_executor("associative"),
    "recurra staged": _by_executor("staged"),
    "torch.nn": _torch_nn,
    "eager loop": _eager_loop,
}
# The same, only where a case names them.
EXTRA: dict[str, Callable[[Material], Run | str]] = {
    ONE_THREAD: lambda material: one_thread(_scan("native", material, material.lengths)),
    PADDED: lambda material: _scan("native", material, None),
    ROUNDED: lambda material: rounded(_scan("native", material, material.lengths)),
    OUR_LSTM: lambda material: _scan("native", draw(replace(material.case, cell="lstm")), material.lengths),
}
OTHER_WORK = (PADDED, OUR_LSTM)  # another result by intention: its time is compared, its numbers are not
BASELINES = ("torch.nn", "eager loop")  # the first that a case has is what the others are compared with
EXECUTORS_MEASURED = {f"recurra {name}": name for name in ("native", "torch", "associative", "staged")}
