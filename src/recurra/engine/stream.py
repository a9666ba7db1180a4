"""A cell held ready between frames: its weights are packed once, its state stays where it is, and frames are pushed.

Where the native machine can run the cell, a push is one call into it on memory that was there before; elsewhere each
push is a scan. Both give what one scan over all frames would: the same bits on the native machine.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recurra.cells import Cell
from recurra.cells.wrap import Wrapper
from recurra.engine import native as machine
from recurra.engine.derive import leaves_of
from recurra.engine.lowered import Kind
from recurra.engine.native import cast
from recurra.engine.options import WEIGHTS, current_options, options
from recurra.engine.plan import choose
from recurra.engine.request import Leaves, Request, check_nan
from recurra.engine.scan import make_request, scan
from recurra.engine.shares import Shares, split, weights_of
from recurra.errors import ExecutorError, OptionError
from recurra.kernels.cpu import native
from recurra.shapes import extent
from recurra.steps.stages import Stage


class CellStream:
    """The rows of independent sequences, each with its state, which frames are pushed through.

    Args:
        cell: any.
        rows: for how many sequences there is room.
        weights: ``"float"``, ``"bfloat16"`` or ``"int8"`` (a factor a row): how the native machine holds them. They are
            computed with in float32. None: what the options say where this is made.
        looks: whether NaN in what is pushed is an error, as the options say; of deeper layers it is of the weights.

    Attributes:
        state: a leaf each, ``(rows, ...)``.

    Raises:
        OptionError: the weights are of no such kind, or the cell is in training and would draw masks anew in each push.
        ExecutorError: fewer bits are wanted, and the native machine cannot run the cell.
    """

    def __init__(self, cell: Cell[Any], rows: int, *, weights: str | None = None, looks: bool = True):
        weights = current_options().weights if weights is None else weights
        if weights not in WEIGHTS:
            raise OptionError(f"weights must be one of {', '.join(WEIGHTS)}", received=repr(weights))
        self.given, self.weights, self.looks = cell, weights, looks
        self.draws = any(type(m).prepare not in _SAME for m in cell.modules() if isinstance(m, Cell))
        self._require_still()
        self.held: _Held | None = None
        with torch.inference_mode(mode=False), torch.no_grad():  # what is made here may be written to anywhere
            self.cell = _kept(cell)
            self.state: list[Tensor] = [s.clone() for s in self._initial(rows)]
            request = self._request()
            if choose(request)[0].name == "native":
                self.held = _Held(self, request)
            elif weights != "float":
                why = machine.refusal(request) or f"options choose {choose(request)[0].name}"
                raise ExecutorError(f"weights={weights!r} need the native machine: {why}", received=type(cell).__name__)

    @property
    def executor(self) -> str:
        """Who runs the pushes: ``native``, or ``scan``."""
        return "native" if self.held else "scan"

    def refresh(self, cell: Cell[Any]) -> None:
        """Take the weights of a cell of the same structure."""
        with torch.inference_mode(mode=False), torch.no_grad():
            self.given, self.cell = cell, _kept(cell)
            if self.held:
                self.held.refresh(self._request())

    def fork(self) -> "CellStream":
        """The same weights, packed once, and a copy of the state."""
        made: CellStream = object.__new__(CellStream)
        made.__dict__.update(self.__dict__)
        made.state = [s.clone() for s in self.state]
        if self.held:
            made.held = self.held.fork(made)
        return made

    def take(self, state: Sequence[Tensor]) -> None:
        """Another state, of any number of rows."""
        self.state = [s.clone() for s in state]
        if self.held:
            self.held.moved()

    def reset(self, rows: Tensor | None) -> None:
        """Set the initial state in these rows, or in all."""
        for s, first in zip(self.state, self._initial(len(self.state[0]) if rows is None else len(rows)), strict=True):
            s[slice(None) if rows is None else rows] = first.to(s.dtype)

    def push(
        self,
        x: Any,
        rows: Tensor | None = None,
        *,
        frame: bool = False,
        lengths: Any = None,
        reset: Any = None,
        return_states: bool = False,
    ) -> tuple[Tensor, Leaves | None]:
        """``x (T, B, ...)``, or one `frame` ``(B, ...)``, for these rows or all: ``y``, and states where wanted."""
        self._require_still()
        if self.held:
            return self.held.push(x, rows, frame, lengths, reset, return_states)
        return self._scan(x, rows, frame, lengths, reset, return_states)

    def _require_still(self) -> None:
        if self.draws and self.given.training:
            raise OptionError(
                f"{type(self.given).__name__} draws masks in training, and a stream would draw them anew in each push",
                instead="eval() of the layer first",
            )

    @torch.no_grad()
    def _scan(
        self, x: Any, rows: Tensor | None, frame: bool, lengths: Any, reset: Any, return_states: bool
    ) -> tuple[Tensor, Leaves | None]:
        x, reset = _piece(x, frame), _piece(reset, frame)
        state = self.state if rows is None else [s[rows] for s in self.state]
        first = self.cell.State(*state)
        with options(check_nan=self.looks and current_options().check_nan, weights=self.weights):
            y, last, *every = scan(self.cell, x, first, lengths=lengths, reset=reset, return_states=return_states)
        for s, new in zip(self.state, last, strict=True):
            s[slice(None) if rows is None else rows] = new
        leaves = (y, *every[0]) if every else (y,)
        y, *states = [v[0] for v in leaves] if frame else leaves
        return y, tuple(states) if every else None

    def _initial(self, rows: int) -> Leaves:
        with torch.no_grad():
            return tuple(self.cell.initial_state(rows))

    def _request(self) -> Request:
        """One of a single frame."""
        weight = next(iter(self.cell.parameters()), torch.empty(()))
        leaves = [weight.new_zeros(1, 1, *extent(s)) for s in self.cell.input_shapes.values()]
        found = make_request(self.cell, leaves[0] if self.cell.Input is None else self.cell.Input(*leaves))
        return found.replace(weights=self.weights)


class _Held:
    """What the native machine keeps of a stream: its weights, packed, and what pushes of one shape have in common."""

    def __init__(self, stream: CellStream, request: Request):
        self.stream = stream
        self.dtype = request.x[0].dtype
        self.work = machine.working(request)
        self.weights = machine.held(request)
        self.derived = request.derived
        numbers = weights_of(self.derived.forward.staged, *Stage)
        # A frame reads the hoisted weights too; but a team of threads, which waits for its slowest, must be worth it.
        self.bytes = numbers * (8 if self.work is torch.float64 else machine.BYTES[self.weights]) // 2
        cell = stream.cell
        self.plain = type(cell).prepare is Cell.prepare and cell.Input is None and self.dtype is self.work
        self.moved()
        self.refresh(request)

    def moved(self) -> None:
        """The state lies elsewhere."""
        self.stream.state = [cast(s, self.work).contiguous() for s in self.stream.state]
        self.known: tuple[Any, ...] | None = None  # what the last push was like, where the next may be alike

    def refresh(self, request: Request) -> None:
        """Take the weights of a request."""
        found = (v.detach() for v in machine.parts_of(request)[-1])  # of the copies that the stream keeps
        self.values = dict(zip(self.derived.forward.weights, found, strict=True))
        self.packed: dict[tuple[bool, bool], tuple[Any, list[Tensor]]] = {}  # by Kind.within and Kind.every
        self.known = None

    def fork(self, stream: CellStream) -> "_Held":
        made: _Held = object.__new__(_Held)
        made.__dict__.update(self.__dict__)
        made.packed = {key: (step.fork(), vectors) for key, (step, vectors) in self.packed.items()}
        made.stream, made.known = stream, None
        return made

    def push(
        self, x: Any, rows: Tensor | None, frame: bool, lengths: Any, reset: Any, return_states: bool
    ) -> tuple[Tensor, Leaves | None]:
        alike = self.plain and lengths is None and reset is None and isinstance(x, Tensor) and x.is_contiguous()
        key = (x.shape, x.dtype, return_states, torch.get_num_threads()) if alike else None
        inputs: Leaves = (x,)
        if key is None or key != self.known:
            inputs = self._prepare(x, frame, lengths, reset, return_states)
            self.known = key
        if inputs[0].numel():
            addresses, places = [v.data_ptr() for v in inputs], 0 if rows is None else rows.data_ptr()
            look = self.stream.looks and lengths is None and current_options().check_nan
            if not self.step.push(addresses, places, look):
                check_nan(inputs, None)
                self.step.push(addresses, places, False)  # infinity is let through
        y, *states = self.results if self.dtype is self.work else [cast(v, self.dtype) for v in self.results]
        if return_states and self.ended is not None:
            after = [cast(s if rows is None else s[rows], self.dtype) for s in self.stream.state]
            states = list(machine.resting(states, after, self.ended))
        return y, tuple(states) if return_states else None

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def _prepare(self, x: Any, frame: bool, lengths: Any, reset: Any, return_states: bool) -> Leaves:
        """Everything but the frames' numbers and the rows; gives the frames as the machine reads them."""
        x, reset = _piece(x, frame), _piece(reset, frame)
        # Without lengths the machine itself looks.
        with options(check_nan=self.stream.looks and current_options().check_nan and lengths is not None):
            request = make_request(self.stream.cell, x, None, None, lengths, reset, False, return_states)
        T, B, work = request.T, request.B, self.work
        self.ended = request.lengths
        ragged = None if request.lengths is None else tuple(request.lengths.tolist())
        frames = Shares(T, B, False, *split(B, torch.get_num_threads(), self.bytes), ragged)
        kind, self.step, vectors = self._packed(frames, return_states)
        outputs = [torch.zeros(T, B, *row, dtype=work) for row in kind.forward.outputs]
        mask = None if request.reset is None else request.reset.contiguous()
        initial = [] if mask is None else [cast(s, work).contiguous() for s in request.initial()]
        once: list[Tensor] = []
        if kind.graph.constants:
            given = self.values | dict(zip(kind.graph.constants, request.constants, strict=True))
            found = machine.of_sequences(self.derived.forward.staged, given, work)
            once = [cast(found[i], work).contiguous() for i in kind.forward.program.once]
        if T and B:
            rows = min(machine.CHUNK_ROWS, T * B)
            sizes = (T, B, ragged is not None, rows, frames.share_start, frames.order, frames.row_lengths)
            self.step.shape(*sizes, frames.workers, frames.team)
            lists = [[t.data_ptr() for t in v] for v in (self.stream.state, initial, outputs, once)]
            self.step.bind(*lists, 0 if mask is None else mask.data_ptr())
        self.bound = (outputs, initial, once, mask, vectors)  # alive as long as the machine may use them
        by_node = dict(zip(kind.forward.program.outputs, outputs, strict=True))
        self.results = [by_node[i][0] if frame else by_node[i] for i in kind.outputs]
        return tuple(cast(v, work).contiguous() for v in request.x)

    def _packed(self, frames: Shares, every: bool) -> tuple[Kind, Any, list[Tensor]]:
        """The step in the machine's hands, with the vectors that it reads where they lie."""
        graph = self.derived.forward.graph
        counts = (len(graph.inputs), len(graph.states), 0, len(graph.constants), len(self.values))
        kind = machine.kind_of(self.derived, self.work, every, frames, tuple((False,) * n for n in counts))
        key = (kind.within, kind.every)
        if key not in self.packed:
            step = native().Stream(kind.forward.handle, kind.wide, WEIGHTS[self.weights])
            vectors, matrices = machine.operands(kind.forward.program, self.values, self.work)
            step.refresh([v.data_ptr() for v in vectors], [(m.data_ptr(), *m.stride()) for m in matrices])
            self.packed[key] = step, vectors
        return kind, *self.packed[key]


_SAME = (Cell.prepare, Wrapper.prepare)  # these draw nothing themselves


def _kept(cell: Cell[Any]) -> Cell[Any]:
    """The cell on copies of its weights, as they are now; what is shared stays shared."""
    leaves = leaves_of(cell)
    copies = {id(t): t.detach().clone() for t in leaves.values()}
    return cell.bound({path: copies[id(t)] for path, t in leaves.items()})


def _piece(x: Any, frame: bool) -> Any:
    """One frame with an axis of time."""
    if frame and isinstance(x, tuple):
        return type(x)(*(v.unsqueeze(0) for v in x))
    return x.unsqueeze(0) if frame and isinstance(x, Tensor) else x
