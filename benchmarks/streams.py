"""Frames pushed one by one, and many sequences stepped together; and what one would use without streams."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import recurra
from benchmarks import gate
from benchmarks.cases import ROUNDED, Crowd, Frames
from benchmarks.torch_modules import Run, module_for
from recurra.kernels.cpu import native

WHOLE, HALF, QUARTER = "recurra native", ROUNDED, "recurra native, int8"
TOGETHER, APART = "recurra native", "one stream each"
NEAR = {WHOLE: 1e-5, HALF: 0.05, QUARTER: 0.05}  # how far outputs may be from torch's, relative by norm


def _pushed(layer: Any, x: Tensor, weights: str) -> Run:
    stream = layer.stream(batch=x.shape[1], weights=weights)

    def run() -> dict[str, Tensor]:
        stream.reset()
        return {"y": torch.stack([stream.push(frame).clone() for frame in x])}

    return run


def _stepped(module: nn.Module, x: Tensor, step: Callable[[Tensor, Any], tuple[Tensor, Any]]) -> Run:
    @torch.no_grad()
    def run() -> dict[str, Tensor]:
        state, outputs = None, []
        for frame in x:
            y, state = step(frame, state)
            outputs.append(y)
        return {"y": torch.stack(outputs)}

    return run


def draw(row: Frames) -> tuple[recurra.Recurrent, Tensor]:
    """A layer, and all frames."""
    torch.manual_seed(0)
    return recurra.Recurrent(row.cell, row.D, row.H, batch_first=False), torch.randn(row.T, row.B, row.D)


def frames(row: Frames, layer: recurra.Recurrent, x: Tensor) -> dict[str, Run | str]:
    """An LSTM, a frame a call."""
    if native() is None:
        return dict.fromkeys((WHOLE, HALF, QUARTER), "built without the native machine")
    weights = {k: v.detach() for k, v in layer.cells()[0].named_parameters()}
    whole, cell = module_for(row.cell, weights), nn.LSTMCell(row.D, row.H)
    with torch.no_grad():
        for name, weight in cell.named_parameters():
            weight.copy_(getattr(whole, f"{name}_l0"))

    def one(frame: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = whole(frame[None], state)
        return y[0], state

    def by_cell(frame: Tensor, state: Any) -> tuple[Tensor, Any]:
        state = cell(frame, state)
        return state[0], state

    return {
        **{name: _pushed(layer, x, w) for name, w in ((WHOLE, "float"), (HALF, "bfloat16"), (QUARTER, "int8"))},
        "torch.nn": _stepped(whole, x, one),
        "torch.nn.LSTMCell": _stepped(cell, x, by_cell),
    }


def crowd(row: Crowd) -> dict[str, Run | str]:
    """One frame of many sequences; together, while some of them leave and others come."""
    if native() is None:
        return dict.fromkeys((TOGETHER, APART), "built without the native machine")
    torch.manual_seed(0)
    layer, x = recurra.Recurrent(row.cell, row.D, row.H, batch_first=False), torch.randn(row.B, row.D)
    stream, first = layer.stream(batch=row.B), layer.stream()
    alone = [first, *(first.fork() for _ in range(row.B - 1))]

    def together() -> dict[str, Tensor]:
        stream.leave(torch.randperm(row.B)[: row.moving])
        stream.join(row.moving)
        stream.push(x)
        return {}

    def apart() -> dict[str, Tensor]:
        for one, frame in zip(alone, x.split(1), strict=True):
            one.push(frame)
        return {}

    return {TOGETHER: together, APART: apart}


def unequal(calls: dict[str, Run]) -> dict[str, str]:
    """Those whose outputs are not torch's, up to rounding.

    Raises:
        AssertionError: it is ours.
    """
    reference = calls["torch.nn"]()["y"]
    for name, near in NEAR.items():
        error = ((calls[name]()["y"] - reference).norm() / reference.norm()).item()
        assert error <= near, f"{name} is off by {error:.2g}, relative by norm"
    return gate.unequal({"y": reference}, {name: call for name, call in calls.items() if name == "onnxruntime"})
