"""Chrono initialisation: how long units remember, set by the time that the data needs."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from recurra.cells.base import Cell
from recurra.errors import CellDefinitionError, OptionError

# torch.nn's layers, and their heirs here, have the same gates; of two biases the second is then 0 in these.
LAYERS: dict[type[nn.Module], tuple[int, ...]] = {nn.LSTM: (-1, 1, 0, 0), nn.GRU: (0, 1, 0)}


def chrono(module: nn.Module, longest: float) -> nn.Module:
    """Let the units of a module's cells remember for times spread up to `longest` frames (Tallec & Ollivier, 2018).

    Of each unit a time u is drawn uniformly between 1 and ``longest - 1``; the bias of its forget gate becomes log u,
    and that of its input gate the negative of it.

    Args:
        module: a cell, a ``torch.nn.LSTM`` or ``GRU``, or anything that holds some; the biases of its gates are set in
            place.
        longest: the longest dependence expected, in frames; more than 2.

    Returns:
        The module.

    Raises:
        CellDefinitionError: it holds no cell with a gate that sets how long it remembers. OptionError: `longest`.

    Example:
        >>> from recurra import LSTMCell
        >>> _ = torch.manual_seed(0)
        >>> i, f, g, o = chrono(LSTMCell(3, 100), longest=200).bias.chunk(4)
        >>> bool((f == -i).all()), bool((f >= 0).all()), bool(f.max() > 4)
        (True, True, True)
    """
    if not 2 < longest < math.inf:
        raise OptionError("longest must be more than 2 frames, and finite", received=repr(longest))
    gates = [found for m in module.modules() for found in _gates(m)]
    if not gates:
        raise CellDefinitionError(
            "there is no cell here whose gates set how long it remembers",
            received=type(module).__name__,
            instead="an LSTM, a GRU or another gated cell; a cell of your own says so in Cell.memory",
        )
    with torch.no_grad():
        for bias, signs, part in gates:
            blocks = bias.chunk(len(signs))
            times = torch.empty_like(blocks[0]).uniform_(1, longest - 1).log()
            for block, sign in zip(blocks, signs, strict=True):
                if sign:
                    block.copy_(part * sign * times)
    return module


def _gates(module: nn.Module) -> Iterator[tuple[Tensor, tuple[int, ...], int]]:
    """A module's own biases of gates, the signs of their blocks, and 0 for one that is added to another."""
    if isinstance(module, Cell):
        for name, signs in module.memory.items():
            yield module.get_parameter(name), signs, 1
    for kind, signs in LAYERS.items():
        if isinstance(module, kind):
            for name, bias in module.named_parameters(recurse=False):
                if name.startswith("bias"):
                    yield bias, signs, +name.startswith("bias_ih")
