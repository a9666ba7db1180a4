"""Stacked and bidirectional recurrent layers over any cell."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recurra.cells import Cell, cell_named
from recurra.cells import learned_state as begin_learned
from recurra.engine import options, scan
from recurra.engine.operator import opaque
from recurra.errors import CellDefinitionError, OptionError, ResetError, StateShapeError
from recurra.layers.regularise import locked_dropout as locked
from recurra.layers.stream import Streamed

MakeCell = str | type[Cell[Any]] | Callable[[int, int], Cell[Any]]

_Leaves = tuple[tuple[Tensor, ...], ...]  # of a layer: the leaves of the state of each direction


class LayerState(NamedTuple):
    """The states of one layer, a direction each; `backward` is None in a layer that runs one way."""

    forward: Any  # the cell's State, leaves (B, ...)
    backward: Any = None


class Recurrent(Streamed, nn.Module):
    """Run a cell over time, in layers, in one direction or both.

    Args:
        cell: a name (``"lstm"``; ``recurra cells`` lists them), a :class:`~recurra.Cell` class, or any callable
            ``(D, H) -> Cell``, called once a layer and direction.
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units: one number, or one a layer.
        num_layers: L; follows from `hidden_size` where that gives one number a layer.
        bidirectional: run a second cell from the last valid frame to the first; outputs stand side by side.
        dropout: probability of zeroing an output between layers, in training.
        locked_dropout: zero the same outputs of a sequence in all of its frames
            (:func:`recurra.layers.locked_dropout`).
        learned_state: learn the state that sequences begin with, and that a reset sets (:func:`recurra.learned_state`).
        batch_first: inputs and outputs are ``(B, T, ...)``; ``(T, B, ...)`` where it is False.
        device, dtype: where and as what the weights are made.

    Attributes:
        output_size: the width of an output frame: H, twice that with two directions, P for projected cells.

    Raises:
        UnknownNameError: no cell has that name. OptionError: sizes or `dropout` out of range.

    Example:
        >>> net = Recurrent("gru", 3, [8, 4], bidirectional=True)
        >>> y, state = net(torch.zeros(2, 5, 3), lengths=torch.tensor([5, 2]))
        >>> y.shape, state[0].forward.h.shape, state[1].backward.h.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 8]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        cell: MakeCell,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int | None = None,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        locked_dropout: bool = False,
        learned_state: bool = False,
        batch_first: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        widths = _widths(hidden_size, num_layers)
        if not 0 <= dropout < 1:
            raise OptionError("dropout must be at least 0 and less than 1", received=repr(dropout))
        self.input_size, self.widths, self.dropout = input_size, widths, dropout
        self.bidirectional, self.batch_first, self.locked_dropout = bidirectional, batch_first, locked_dropout
        named = cell_named(cell) if isinstance(cell, str) else cell
        make = (lambda D, H: begin_learned(_made(named, D, H))) if learned_state else named
        self.layers = nn.ModuleList()
        width = input_size
        for H in widths:
            cells = [_made(make, width, H) for _ in range(2 if bidirectional else 1)]
            self.layers.append(nn.ModuleList(cells))
            width = sum(output_width(c) for c in cells)
        self.output_size = width
        self.to(device=device, dtype=dtype)

    def forward(
        self,
        x: Any,
        state: Sequence[LayerState] | None = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        return_states: bool = False,
    ) -> Any:
        """Run over time.

        Args:
            x: ``(B, T, D)`` (``(T, B, D)`` without `batch_first`); a NamedTuple of such where the first cell takes one.
            state: one :class:`LayerState` a layer; None begins with each cell's initial state.
            lengths: ``(B,)`` integers, 0 to T, in any order, on any device. Frames past a sequence's length leave its
                state untouched and give outputs of exactly zero.
            reset: bool, ``(B, T)`` (``(T, B)`` without `batch_first`): begin anew from the initial state at that frame.
            return_states: give the state after every frame as well.

        Returns:
            ``(y, state)``: ``y (B, T, output_size)``, one :class:`LayerState` a layer. With `return_states` a third:
            the same structure with leaves ``(B, T, ...)``.

        Raises:
            InputShapeError, InputTypeError, NaNInputError, StateShapeError, LengthsError, ResetError: see the message.
        """
        if state is not None and (isinstance(state, Tensor) or len(state) != len(self.layers)):
            raise StateShapeError(
                f"the state must hold one LayerState for each of {len(self.layers)} layers",
                received=f"{type(state).__name__} of {len(state)}",
            )
        if reset is not None and self.batch_first:
            if not isinstance(reset, Tensor) or reset.dim() != 2:
                raise ResetError("reset must be (B, T) and of dtype bool", received=str(getattr(reset, "shape", reset)))
            reset = reset.t()
        # None would not pass through a compiler.
        before = None if state is None else [tuple(() if one is None else one for one in layer) for layer in state]
        y, last, every = self._run(x, before, lengths, reset, return_states)
        return (y, self._named(last), self._named(every)) if return_states else (y, self._named(last))

    @opaque
    def _run(
        self, x: Any, state: Sequence[tuple[Any, ...]] | None, lengths: Tensor | None, reset: Tensor | None, every: bool
    ) -> tuple[Tensor, list[_Leaves], list[_Leaves]]:
        """The output, and what :meth:`_named` makes states of."""
        common: dict[str, Any] = {"lengths": lengths, "reset": reset, "return_states": every}
        frames = _swap(x) if self.batch_first else x
        last: list[_Leaves] = []
        states: list[_Leaves] = []
        for i, cells in enumerate(self._stack()):
            before = (None, None) if state is None else (*state[i], None)
            if i and self.locked_dropout:
                frames = locked(frames, self.dropout, self.training, time=0)
            elif i:
                frames = nn.functional.dropout(frames, self.dropout, self.training)
            with options(check_nan=False) if i else nullcontext():  # deeper, NaN is of the weights
                runs = [
                    scan(cell, frames, None if start == () else start, reverse=bool(k), **common)
                    for k, (cell, start) in enumerate(zip(cells, before, strict=False))
                ]
            frames = torch.cat([run[0] for run in runs], -1) if len(runs) > 1 else runs[0][0]
            last.append(tuple(tuple(run[1]) for run in runs))
            if every:
                states.append(tuple(tuple(_each(run[2], self.batch_first)) for run in runs))
        return _swap(frames) if self.batch_first else frames, last, states

    def _named(self, layers: list[_Leaves]) -> tuple[LayerState, ...]:
        """States as their cells name them."""
        named = zip(self._stack(), layers, strict=True)
        return tuple(
            LayerState(*(cell.State(*leaves) for cell, leaves in zip(cells, found, strict=True)))
            for cells, found in named
        )

    def cells(self) -> list[Cell[Any]]:
        """All cells, layer by layer, forward before backward."""
        return [cell for layer in self._stack() for cell in layer]

    def _stack(self) -> list[list[Cell[Any]]]:
        return [list(layer) for layer in self.layers]  # type: ignore[call-overload]

    def extra_repr(self) -> str:
        """What is not seen from the cells."""
        return f"dropout={self.dropout}, batch_first={self.batch_first}"


def output_width(cell: Cell[Any]) -> int:
    """The width of a cell's output, from one step on zeros.

    Raises:
        CellDefinitionError: the output of `step` is not ``(B, width)``, so that no layer can stand on it.
    """
    with torch.no_grad():
        weight = next(cell.parameters(), torch.empty(()))
        leaves = [weight.new_zeros(1, *(d.size for d in s)) for s in cell.input_shapes.values()]
        constants = [weight.new_ones(1, *(d.size for d in s)) for s in cell.constant_shapes.values()]
        x = leaves[0] if cell.Input is None else cell.Input(*leaves)
        y, _ = cell(x, None, cell.Constants(*constants) if cell.Constants else None)
    if not isinstance(y, Tensor) or y.dim() != 2:
        raise CellDefinitionError(
            f"{type(cell).__name__}.step must return an output of shape (B, width) to stand in a layer",
            received=str(tuple(y.shape)) if isinstance(y, Tensor) else type(y).__name__,
        )
    return y.shape[1]


def _widths(hidden_size: int | Sequence[int], num_layers: int | None) -> tuple[int, ...]:
    if isinstance(hidden_size, int):
        count = 1 if num_layers is None else num_layers
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise OptionError("num_layers must be a positive integer", received=repr(num_layers))
        return (hidden_size,) * count
    widths = tuple(hidden_size)
    if not widths or (num_layers is not None and num_layers != len(widths)):
        raise OptionError(
            "hidden_size gives one width a layer, so its length is the number of layers",
            received=f"{len(widths)} widths, num_layers={num_layers}",
        )
    return widths


def _made(make: Callable[[int, int], Cell[Any]], D: int, H: int) -> Cell[Any]:
    cell = make(D, H)
    if not isinstance(cell, Cell):
        name = getattr(make, "__name__", repr(make))
        raise CellDefinitionError(
            f"{name} must make a recurra.Cell",
            received=type(cell).__name__,
            instead=f"a subclass of recurra.Cell{' (torch.nn cells are not)' if inspect.isclass(make) else ''}",
        )
    return cell


def _swap(x: Any) -> Any:
    """Batch first to time first and back, whatever the structure."""
    swap = lambda v: v.transpose(0, 1) if isinstance(v, Tensor) and v.dim() > 1 else v  # the cell says what is wrong
    return type(x)(*map(swap, x)) if hasattr(x, "_fields") else swap(x)


def _each(states: Any, batch_first: bool) -> Any:
    return _swap(states) if batch_first else states
