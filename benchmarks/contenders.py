"""Who is measured: ways to run one case, all with the same weights and inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import recurra
from benchmarks.cases import Case
from recurra.cells import Cell, cell_named
from recurra.engine import EXECUTORS
from recurra.engine.scan import make_request

Run = Callable[[], dict[str, Tensor]]


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

    @property
    def flops(self) -> int:
        """Of the matrix products, on valid frames: 2 a weight forward; as many again for dx and for dW."""
        frames = self.case.T * self.case.B if self.lengths is None else int(self.lengths.sum())
        weights = sum(p.numel() for p in self.cell.parameters() if p.dim() > 1)
        return frames * weights * 2 * (3 if self.case.train else 1)


def draw(case: Case, seed: int = 0) -> Material:
    """Weights as the cell initialises itself, unit normal inputs."""
    torch.manual_seed(seed)
    cell = cell_named(case.cell)(case.D, case.H)
    x = torch.randn(case.T, case.B, case.D, requires_grad=case.train)
    with torch.no_grad():
        width = cell(x[0])[0].shape[1:]
    lengths = torch.randint(max(1, case.T // 16), case.T + 1, (case.B,)) if case.ragged else None
    return Material(case, cell, x, torch.randn(case.T, case.B, *width), lengths)


def _measured(material: Material, module: nn.Module, forward: Callable[[], Tensor]) -> Run:
    """One call: forward, or forward and backward into empty gradients."""

    def infer() -> dict[str, Tensor]:
        with torch.no_grad():
            return {"y": forward()}

    def train() -> dict[str, Tensor]:
        material.x.grad = None
        module.zero_grad(set_to_none=True)
        y = forward()
        y.backward(material.dy)
        assert material.x.grad is not None
        return {"y": y.detach(), "dx": material.x.grad}

    return train if material.case.train else infer


# --- Recurra ----------------------------------------------------------------------------------------------------------


def _by_executor(name: str) -> Callable[[Material], Run | str]:
    def prepare(material: Material) -> Run | str:
        refusal = EXECUTORS[name].refusal(make_request(material.cell, material.x, lengths=material.lengths))

        def forward() -> Tensor:
            with recurra.options(executor=name):
                y, _ = recurra.scan(material.cell, material.x, lengths=material.lengths)
            return y

        return refusal or _measured(material, material.cell, forward)

    return prepare


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

    return _measured(material, cell, forward)


# cell -> its class in torch.nn; what torch has no class for is compared with the eager loop alone
TORCH_NN: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU, "lstmp": nn.LSTM}


def _torch_nn(material: Material) -> Run | str:
    """The module of torch.nn, by pack_padded_sequence where sequences have lengths."""
    case, cell, lengths = material.case, material.cell, material.lengths
    if case.cell not in TORCH_NN:
        return f"torch.nn has no {case.cell}"
    projection = {"proj_size": cell.sizes["P"]} if "P" in cell.sizes else {}
    module = TORCH_NN[case.cell](case.D, case.H, **projection).to(material.x.dtype)
    given = dict(cell.named_parameters())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        for name, weight in given.items():
            if name == "bias_hn":
                module.bias_hh_l0[-case.H :] = weight
            else:
                getattr(module, {"bias": "bias_ih"}.get(name, name) + "_l0").copy_(weight)

    def forward() -> Tensor:
        if lengths is None:
            return module(material.x)[0]
        packed = nn.utils.rnn.pack_padded_sequence(material.x, lengths, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(module(packed)[0], total_length=case.T)[0]

    return _measured(material, module, forward)


# name -> prepare(material): a call to measure, or the sentence that says why there is none
CONTENDERS: dict[str, Callable[[Material], Run | str]] = {
    "recurra torch": _by_executor("torch"),
    "recurra associative": _by_executor("associative"),
    "recurra staged": _by_executor("staged"),
    "torch.nn": _torch_nn,
    "eager loop": _eager_loop,
}
BASELINES = ("torch.nn", "eager loop")  # the first that a case has is what the others are compared with
