"""Layers as a stream: frames in as they come, outputs out, the state kept between."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recurra.cells import Cell
from recurra.engine.stream import CellStream
from recurra.errors import InputShapeError, InputTypeError, OptionError, StateShapeError

_FORMAT = "recurra stream 1"


class Stream:
    """Sequences that are pushed through layers frame by frame, as many at a time as there are, without end.

    Each sequence has a *row*, a number that stays its own from :meth:`join` to :meth:`leave`. What is pushed piece by
    piece gives what one call of the layer over the whole gives; on the native machine the same bits. A stream is
    inference: nothing is recorded for gradients, and weights are those of its making until :meth:`refresh`.

    Made by ``layer.stream(batch=…)``, of :class:`recurra.Recurrent` and of :class:`recurra.LSTM`, ``GRU`` and ``RNN``.

    Args:
        cells: gives a cell a layer, on the weights as they are.
        batch: how many sequences there are at first: rows 0 to ``batch - 1``.
        batch_first: whether pieces of several frames are ``(B, T, ...)`` or ``(T, B, ...)``.
        weights: ``"float"``: as they are; ``"bfloat16"`` or ``"int8"`` (a factor a row of each matrix): rounded, in a
            half or a quarter of the memory; sums and states stay float32. Needs the native machine. None: as
            :func:`recurra.options` say where the stream is made.

    Raises:
        OptionError: `weights` is none of these, or the layers draw masks in training.
        ExecutorError: `weights` are wanted in fewer bits, and the native machine cannot run a cell.

    Example:
        >>> import recurra
        >>> layer = recurra.LSTM(3, 4)
        >>> stream, x = layer.stream(batch=2), torch.randn(5, 2, 3)
        >>> outputs = torch.stack([stream.push(frame).clone() for frame in x])
        >>> torch.equal(outputs, layer(x)[0])
        True
    """

    def __init__(
        self, cells: Callable[[], Sequence[Cell[Any]]], batch: int = 1, *, batch_first: bool = False,
        weights: str | None = None,
    ):  # fmt: skip
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 0:
            raise OptionError("batch must be a whole number, 0 or more", received=repr(batch))
        self.cells = cells
        self.layers = [CellStream(cell, batch, weights=weights, looks=not k) for k, cell in enumerate(cells())]
        self.batch_first = batch_first
        self._taken = torch.ones(batch, dtype=torch.bool)
        self._all: Tensor | None = None  # the rows that are taken, where these are not all of _taken
        self._moved = False  # whether _all is of another _taken
        self._room = batch
        self._frame_axes = 1 + len(next(iter(self.layers[0].cell.input_shapes.values())))

    def __repr__(self) -> str:
        cells = ", ".join(f"{type(layer.cell).__name__} by {layer.executor}" for layer in self.layers)
        return f"Stream({cells}; {self.batch} sequences)"

    @property
    def batch(self) -> int:
        """How many sequences there are now."""
        return int(self._taken.sum())

    @property
    def rows(self) -> list[int]:
        """The rows that are taken, in the order in which frames are pushed."""
        return self._taken.nonzero()[:, 0].tolist()

    # --- frames -------------------------------------------------------------------------------------------------------

    def push(
        self, x: Any, *, rows: Iterable[int] | Tensor | None = None, lengths: Any = None, reset: Any = None,
        return_states: bool = False,
    ) -> Any:  # fmt: skip
        """One frame, or a piece of several, for every sequence or for some of them.

        Args:
            x: ``(B, D)``, one frame; or ``(B, T, D)`` with `batch_first`, ``(T, B, D)`` without. A NamedTuple of such
                where the first cell takes one.
            rows: of which sequences, in the order of `x`, each once; the others stay as they are. None: all.
            lengths: ``(B,)`` how many frames of a piece each sequence has.
            reset: bool, one a frame and sequence, in the layout of `x`: begin anew at that frame.
            return_states: give the state after every frame as well.

        Returns:
            ``y`` in the layout of `x`; with `return_states` ``(y, states)``. They are views that hold until the next
            push: clone what is to stay.

        Raises:
            InputShapeError, InputTypeError, NaNInputError, LengthsError, ResetError: an argument does not fit.
            OptionError: `rows` names a row that no sequence has, or one twice.
        """
        first = x[0] if isinstance(x, tuple) and x else x
        if not isinstance(first, Tensor):
            raise InputTypeError("a frame is a tensor, or a structure of such", received=type(x).__name__)
        frame = first.dim() == self._frame_axes
        if frame and lengths is not None:
            raise InputShapeError("lengths are of a piece of several frames", received="one frame")
        swapped = self.batch_first and not frame
        if swapped:
            x, reset = _swap(x), _swap(reset)
        at = self._every() if rows is None else self._checked(rows)
        count, axis = (self._room if at is None else len(at)), (0 if frame or self.batch_first else 1)
        if first.dim() > axis and first.shape[axis] != count:
            raise InputShapeError(
                f"a push is of {count} sequences", received=f"frames of {first.shape[axis]}",
                instead="rows=, for some of the sequences",
            )  # fmt: skip
        every: list[Any] = []
        for layer in self.layers:
            x, states = layer.push(x, at, frame=frame, lengths=lengths, reset=reset, return_states=return_states)
            if states is not None:
                states = layer.cell.State(*states)
                every.append(_swap(states) if swapped else states)
        y = _swap(x) if swapped else x
        return (y, tuple(every)) if return_states else y

    # --- sequences ----------------------------------------------------------------------------------------------------

    def join(self, count: int = 1) -> list[int]:
        """New sequences, in their initial state: their rows, the lowest that are free."""
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise OptionError("count must be a whole number, 0 or more", received=repr(count))
        room, batch = self._room, self.batch
        if batch + count > room:  # twice as much, so that joining one by one costs little
            more = max(batch + count, 2 * room) - room
            self._taken, self._room = torch.cat([self._taken, self._taken.new_zeros(more)]), room + more
            for layer in self.layers:
                layer.take([torch.cat([s, s.new_zeros(more, *s.shape[1:])]) for s in layer.state])
        rows = (~self._taken).nonzero()[:count, 0]
        self._taken[rows], self._moved = True, True
        for layer in self.layers:
            layer.reset(rows)
        return rows.tolist()

    def leave(self, rows: Iterable[int]) -> None:
        """These sequences end; their rows are free for others."""
        self._taken[self._checked(rows)], self._moved = False, True

    def reset(self, rows: Iterable[int] | None = None) -> None:
        """Begin anew, from the initial state, in these rows or in all."""
        at = None if rows is None else self._checked(rows)
        for layer in self.layers:
            layer.reset(at)

    def select(self, rows: Iterable[int]) -> None:
        """Go on with the sequences of these rows alone, as rows 0, 1, …; a row may be named more than once."""
        at = self._checked(rows, once=False)
        for layer in self.layers:
            layer.take([s[at] for s in layer.state])
        self._taken, self._room, self._moved = torch.ones(len(at), dtype=torch.bool), len(at), True

    def reorder(self, rows: Iterable[int]) -> None:
        """:meth:`select` of as many rows as there are: the step of a beam search from old hypotheses to new ones."""
        at = list(rows)
        if len(at) != self.batch:
            raise OptionError(f"reorder names {self.batch} rows, one a sequence", received=f"{len(at)} rows")
        self.select(at)

    def fork(self) -> Self:
        """A stream that goes on from here on its own; packed weights are shared until one of the two is refreshed."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made.layers, made._taken = [layer.fork() for layer in self.layers], self._taken.clone()
        return made

    def refresh(self) -> None:
        """Read the weights as they are now; the state stays."""
        for layer, cell in zip(self.layers, self.cells(), strict=True):
            layer.refresh(cell)

    # --- the state ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> tuple[Any, ...]:
        """A copy of the state: the cell's State a layer, leaves ``(batch, ...)`` in the order of :attr:`rows`."""
        return tuple(layer.cell.State(*(s[self._taken] for s in layer.state)) for layer in self.layers)

    @state.setter
    def state(self, state: Sequence[Any]) -> None:
        if len(state) != len(self.layers):
            raise StateShapeError(
                f"the state must hold one State for each of {len(self.layers)} layers", received=f"{len(state)}"
            )
        new = [layer.cell.check_state(s, self.batch) for layer, s in zip(self.layers, state, strict=True)]
        for layer, leaves in zip(self.layers, new, strict=True):
            for own, given in zip(layer.state, leaves, strict=True):
                own[self._taken] = given.detach().to(own.dtype)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state and the rows to a file (safetensors); it is whole or not there."""
        path = Path(path)
        tensors = {f"{k}.{leaf}": v.contiguous() for k, s in enumerate(self.state) for leaf, v in s._asdict().items()}
        about = {"format": _FORMAT, "rows": json.dumps(self.rows), "room": str(self._room)}
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as beside:
            whole = Path(beside) / path.name
            save_file(tensors, whole, about)
            with whole.open("rb") as file:
                os.fsync(file.fileno())
            whole.replace(path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on with what :meth:`save` wrote, rows included, by a stream of the same layers.

        Raises:
            StateShapeError: the file is no saved stream, or one of other layers.
        """
        try:
            with safe_open(str(path), "pt") as file:
                about, found = file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise StateShapeError(f"{path} is no saved stream", received=str(error)) from None
        if about.get("format") != _FORMAT:
            raise StateShapeError(f"{path} is no saved stream", received=f"format {about.get('format')!r}")
        rows, room = json.loads(about["rows"]), int(about["room"])
        leaves = [list(layer.cell.state_shapes) for layer in self.layers]
        wanted = {f"{k}.{leaf}" for k, names in enumerate(leaves) for leaf in names}
        if set(found) != wanted:
            raise StateShapeError(
                f"{path} is of other layers", received=", ".join(sorted(found)), instead=", ".join(sorted(wanted))
            )
        state = [
            layer.cell.check_state(tuple(found[f"{k}.{leaf}"] for leaf in names), len(rows))
            for k, (layer, names) in enumerate(zip(self.layers, leaves, strict=True))
        ]
        if sorted(set(rows)) != rows or not all(isinstance(r, int) and 0 <= r < room for r in rows):
            raise StateShapeError(f"{path}: its rows do not fit", received=f"{rows} of {room}")
        for layer in self.layers:
            layer.take([s.new_zeros(room, *s.shape[1:]) for s in layer.state])
        self._taken, self._room = torch.zeros(room, dtype=torch.bool), room
        self._taken[rows], self._moved = True, True
        self.state = state

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _every(self) -> Tensor | None:
        if self._moved:  # once a push, however many have come and gone before it
            self._all, self._moved = None if self._taken.all() else self._taken.nonzero()[:, 0], False
        return self._all

    def _checked(self, rows: Iterable[int] | Tensor, *, once: bool = True) -> Tensor:
        at = torch.as_tensor(rows if isinstance(rows, Tensor) else list(rows), dtype=torch.int64)
        room = self._room
        if at.dim() != 1:
            raise OptionError("rows are a list of row numbers", received=str(tuple(at.shape)))
        known = (at >= 0) & (at < room) & self._taken[at.clamp(0, max(room - 1, 0))] if room else at < 0
        if not known.all():
            raise OptionError("no sequence has this row", received=str(int(at[~known][0])),
                              instead="Stream.rows names those that there are")  # fmt: skip
        if once and len(at.unique()) != len(at):
            raise OptionError("a row is named twice", received=str(at.tolist()))
        return at.contiguous()


class Streamed:
    """Layers that can run on frames as they come: they have ``cells()``, ``bidirectional`` and ``batch_first``."""

    def stream(self: Any, batch: int = 1, *, weights: str | None = None) -> Stream:
        """Run on frames as they come, in constant memory: see :class:`recurra.Stream`.

        Args:
            batch: how many sequences there are at first.
            weights: ``"float"``, ``"bfloat16"`` or ``"int8"``: how the stream holds the weights; None: as
                :func:`recurra.options` say.

        Raises:
            OptionError: the layer runs both ways: a stream has no end from which to run back.
        """
        if self.bidirectional:
            raise OptionError(
                f"{type(self).__name__} runs both ways, and a stream has no end from which to run back",
                instead="bidirectional=False",
            )
        return Stream(self.cells, batch, batch_first=self.batch_first, weights=weights)


def _swap(x: Any) -> Any:
    """Batch first to time first and back; what is neither a tensor nor a structure of such is refused later."""
    if isinstance(x, tuple):
        return type(x)(*(v.transpose(0, 1) for v in x))
    return x.transpose(0, 1) if isinstance(x, Tensor) and x.dim() > 1 else x
