"""The kernels behind torch.nn, for the cells they know: never slower than what the user had.

Padding is handled around the kernel, exactly: an LSTM's cell state, which the kernel returns for the last padded frame
alone, is frozen there by one more input column that closes the input gate and opens the forget gate.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recurra.cells import Cell, GRUCell, LSTMCell, LSTMPCell, RNNCell
from recurra.engine.request import Request, Result

# Added to a gate's input in padding: far beyond where a sigmoid is exactly 0 or 1, far within the range of any float.
_SHUT = 1e4
Kernel = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Vendor:
    """How one cell meets torch's kernel for it."""

    kernel: Callable[[Any], Kernel]
    weights: Callable[[Any], tuple[Tensor, ...]]  # W_ih, W_hh, b_ih, b_hh and so on, as torch.nn keeps them
    refuses: Callable[[Any], str] = lambda cell: ""
    hides: str = ""  # the leaf whose values the kernel gives for the last frame alone
    says: str = ""  # what torch warns of on the CPU, and the user can do nothing about
    freeze: tuple[float, ...] = ()  # what padding adds to each gate block so that the hidden leaf stays as it is


def _with_zero_bias(cell: Any) -> tuple[Tensor, ...]:
    return (cell.weight_ih, cell.weight_hh, cell.bias, torch.zeros_like(cell.bias))


def _gru_weights(cell: Any) -> tuple[Tensor, ...]:
    recurrent = torch.cat([cell.bias.new_zeros(2 * cell.hidden_size), cell.bias_hn])
    return (cell.weight_ih, cell.weight_hh, cell.bias, recurrent)


_LSTM = (-_SHUT, _SHUT, 0.0, 0.0)  # input gate shut, forget gate open
VENDORS: dict[type[Cell[Any]], Vendor] = {
    RNNCell: Vendor(
        lambda cell: {"tanh": torch._VF.rnn_tanh, "relu": torch._VF.rnn_relu}[cell.nonlinearity],
        _with_zero_bias,
    ),
    LSTMCell: Vendor(lambda cell: torch._VF.lstm, _with_zero_bias, hides="c", freeze=_LSTM),
    LSTMPCell: Vendor(
        lambda cell: torch._VF.lstm,
        lambda cell: (*_with_zero_bias(cell), cell.weight_hr),
        refuses=lambda cell: "" if cell.sizes["P"] < cell.sizes["H"] else "torch projects to fewer than H units only",
        hides="c",
        says="LSTM with projections is not supported with oneDNN",
        freeze=_LSTM,
    ),
    GRUCell: Vendor(
        lambda cell: torch._VF.gru,
        _gru_weights,
        refuses=lambda cell: "" if cell.reset == "after" else "torch has the GRU with its reset after the product only",
    ),
}


def refusal(request: Request) -> str:
    """Why the kernels of torch.nn cannot run this; empty where they can."""
    vendor = VENDORS.get(type(request.cell))
    if vendor is None:
        return f"torch.nn has no kernel for {type(request.cell).__name__}"
    if request.reset is not None:
        return "torch.nn cannot reset inside of a sequence"
    if request.return_states and vendor.hides:
        return f"torch.nn does not return {vendor.hides} for every frame"
    if request.x[0].dtype is torch.float16 and request.x[0].device.type == "cpu":
        return "torch.nn has no float16 kernel for training on the CPU"
    if not request.T or not request.B:
        return "there is no frame to run"
    return vendor.refuses(request.cell)


def run(request: Request, save: str | int) -> Result:
    """Run a request that was not refused."""
    cell, (x,) = request.cell, request.x
    vendor = VENDORS[type(cell)]
    weights = vendor.weights(cell)
    T, B = request.T, request.B
    lengths = None if request.lengths is None else request.lengths.to(x.device)
    valid = None if lengths is None else torch.arange(T, device=x.device)[:, None] < lengths
    if valid is not None:
        x = torch.where(valid[..., None], x, 0.0)  # the kernel reads padding: it may hold anything, NaN too
        if vendor.freeze:
            gate = weights[0].new_tensor(vendor.freeze).repeat_interleave(cell.hidden_size)
            x = torch.cat([x, (~valid)[..., None].to(x.dtype)], -1)
            weights = (torch.cat([weights[0], gate[:, None]], 1), *weights[1:])
    mirror = _mirror(T, B, lengths, x.device) if request.reverse else None
    x = x if mirror is None else mirror(x)
    first = tuple(s[None].contiguous() for s in request.state)
    with warnings.catch_warnings():
        if vendor.says:
            warnings.filterwarnings("ignore", message=vendor.says)
        y, *rest = vendor.kernel(cell)(
            x.contiguous(), first if len(first) > 1 else first[0], weights, True, 1, 0.0, cell.training, False, False
        )
    last = [r[0] for r in rest]
    if valid is not None and lengths is not None:
        at = (lengths - 1).clamp_min(0)
        h = y.gather(0, at.view(1, B, 1).expand(1, B, y.shape[-1]))[0]
        last[0] = torch.where((lengths > 0)[:, None], h, request.state[0])
        y = torch.where(valid[..., None], y, 0.0)
    y = y if mirror is None else mirror(y)
    states = None
    if request.return_states:  # of cells whose output is their only state
        frozen = request.state[0] if request.reverse else last[0]
        states = (y if valid is None else torch.where(valid[..., None], y, frozen),)
    return Result(y, tuple(last), states)


def _mirror(T: int, B: int, lengths: Tensor | None, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Turns the valid frames of each sequence around, in place; padding stays behind them."""
    if lengths is None:
        return lambda v: v.flip(0)
    t = torch.arange(T, device=device)[:, None]
    source = torch.where(t < lengths, lengths - 1 - t, t) * B + torch.arange(B, device=device)
    flat = source.reshape(-1)
    return lambda v: v.reshape(T * B, *v.shape[2:]).index_select(0, flat).reshape(v.shape)
