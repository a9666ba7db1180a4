"""Cells made of cells: what is put around a step, whatever the step is."""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from recurra.cells.base import Cell
from recurra.errors import CellDefinitionError, OptionError, UnknownNameError
from recurra.shapes import numel


class Wrapper(Cell[Any]):
    """A cell around another: state, input and constants are the inner cell's, unless a subclass adds to them.

    Args:
        cell: the inner cell.
        letters: sizes of further letters that the subclass uses in shapes.
    """

    def __init__(self, cell: Cell[Any], **letters: int):
        self.State, self.Input = cell.State, self.Input or cell.Input  # type: ignore[misc]  # of this instance
        self.Constants = self.Constants or cell.Constants  # type: ignore[misc]
        super().__init__(cell.input_size, cell.hidden_size, **{**_further(cell), **letters})
        self.cell = cell

    def initial_state(self, batch_size: int, *, like: Tensor | None = None) -> Any:
        """The inner cell's."""
        return self.cell.initial_state(batch_size, like=like)

    def prepare(self, x: Any, constants: Any) -> tuple[Cell[Any], Any, Any]:
        """What the inner cell draws."""
        inner, x, constants = self.cell.prepare(x, constants)
        return self.around(inner), x, constants

    def around(self, inner: Cell[Any]) -> Self:
        """This wrapper around another inner cell, which is bound from its own."""
        if inner is self.cell:
            return self
        made = self.bound({})
        made.__dict__["_modules"]["cell"] = inner
        return made

    def step(self, x: Any, state: Any, *constants: Any) -> tuple[Tensor, Any]:
        """The inner cell's."""
        return self.cell.step(x, state, *constants)

    def reset_parameters(self) -> None:
        """Draw the inner cell's weights anew."""
        self.cell.reset_parameters()


def _further(cell: Cell[Any]) -> dict[str, int]:
    return {letter: size for letter, size in cell.sizes.items() if letter not in ("D", "H")}


def probability(name: str, p: float) -> float:
    """`p`, or OptionError where it is none of at least 0 and less than 1."""
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p < 1:
        raise OptionError(f"{name} must be at least 0 and less than 1", received=repr(p))
    return float(p)


def _of_leaves(what: str, cell: Cell[Any], p: Any) -> dict[str, float]:
    """One probability for each leaf of the state."""
    named = p if isinstance(p, dict) else dict.fromkeys(cell.state_shapes, p)
    for leaf in named:
        if leaf not in cell.state_shapes:
            raise UnknownNameError(f"leaf of the state of {type(cell).__name__}", leaf, cell.state_shapes)
    return {leaf: probability(f"{what} of {leaf}", named.get(leaf, 0.0)) for leaf in cell.state_shapes}


class ZoneoutInput(NamedTuple):
    """A frame, and which units keep their state in it."""

    x: Tensor  # (B, D)
    kept: Annotated[Tensor, "Z"]  # (B, Z) 1 where a number of the state is kept; all leaves side by side


class Zoneout(Wrapper):
    r"""See :func:`zoneout`."""

    Input = ZoneoutInput

    def __init__(self, cell: Cell[Any], p: float | dict[str, float]):
        if cell.Input is not None:
            raise CellDefinitionError(
                "zoneout needs a cell whose input is one tensor",
                received=type(cell).__name__,
                instead="zoneout innermost: residual(zoneout(cell, p))",
            )
        widths = {leaf: numel(shape) for leaf, shape in cell.state_shapes.items()}
        super().__init__(cell, Z=sum(widths.values()))
        self.p = _of_leaves("zoneout", cell, p)
        rates = torch.cat([torch.full((n,), self.p[leaf]) for leaf, n in widths.items()])
        self.register_buffer("rate", rates, persistent=False)
        self.rate: Tensor

    def prepare(self, x: Any, constants: Any) -> tuple[Cell[Any], Any, Any]:
        """Draw which units are kept: anew in each frame in training, their expectation in evaluation."""
        if isinstance(x, Tensor):
            rate = self.rate.to(x).expand(*x.shape[:-1], -1)
            x = ZoneoutInput(x, torch.bernoulli(rate) if self.training else rate)
        frames = x.x if isinstance(x, ZoneoutInput) else x
        inner, _, constants = self.cell.prepare(frames, constants)
        return self.around(inner), x, constants

    def step(self, x: ZoneoutInput, state: Any, *constants: Any) -> tuple[Tensor, Any]:
        """One frame: ``x.x (B, D)``, ``x.kept (B, Z)``."""
        y, new = self.cell.step(x.x, state, *constants)
        sizes = [numel(shape) for shape in self.state_shapes.values()]
        leaves = []
        for old, fresh, kept in zip(state, new, x.kept.split(sizes, -1), strict=True):
            kept = kept.reshape(old.shape) if old.dim() > 2 else kept
            leaves.append(kept * old + (1 - kept) * fresh)
            y = leaves[-1] if y is fresh else y  # an output that is the state stays the state
        return y, self.State(*leaves)


def zoneout(cell: Cell[Any], p: float | dict[str, float]) -> Zoneout:
    r"""In training, let each unit keep its state for a frame with probability p (Krueger et al., 2017).

    .. math::
        s_t = d_t \odot s_{t-1} + (1 - d_t) \odot \tilde s_t, \qquad d_t \sim \mathrm{Bernoulli}(p)

    where :math:`\tilde s_t` is what the cell computes; in evaluation :math:`d_t = p`. Where the cell's output is a leaf
    of its state, it is that leaf after zoneout.

    Args:
        cell: whose input is one tensor.
        p: one number for all leaves of the state, or by leaf: ``{"h": 0.05, "c": 0.5}``.

    Raises:
        OptionError: a probability is out of range. UnknownNameError: the state has no such leaf.
        CellDefinitionError: the cell takes several inputs.

    Example:
        >>> from recurra import LSTMCell, scan
        >>> cell = zoneout(LSTMCell(3, 4), {"h": 0.05, "c": 0.5})
        >>> y, state = scan(cell, torch.zeros(5, 2, 3))
        >>> y.shape
        torch.Size([5, 2, 4])
    """
    return Zoneout(cell, p)


class DropoutConstants(NamedTuple):
    """What a sequence drops of its state, the same in each frame."""

    scale: Annotated[Tensor, "R"]  # (B, R) 0 where a number of the state is dropped, else 1 / (1 - p)


class RecurrentDropout(Wrapper):
    r"""See :func:`recurrent_dropout`."""

    Constants = DropoutConstants

    def __init__(self, cell: Cell[Any], p: float, leaves: Sequence[str] = ("h",)):
        if cell.Constants is not None:
            raise CellDefinitionError(
                "recurrent_dropout needs a cell without constants of its own", received=type(cell).__name__
            )
        for leaf in leaves:
            if leaf not in cell.state_shapes:
                raise UnknownNameError(f"leaf of the state of {type(cell).__name__}", leaf, cell.state_shapes)
        super().__init__(cell, R=sum(numel(cell.state_shapes[leaf]) for leaf in leaves))
        self.p, self.leaves = probability("p", p), tuple(leaves)

    def prepare(self, x: Any, constants: Any) -> tuple[Cell[Any], Any, Any]:
        """Draw what each sequence drops, once."""
        inner, x, _ = self.cell.prepare(x, None)
        if constants is None:
            first = x if isinstance(x, Tensor) else x[0]
            lead = first.dim() - len(next(iter(self.input_shapes.values())))
            ones = first.new_ones(first.shape[lead - 1], self.sizes["R"])
            constants = DropoutConstants(nn.functional.dropout(ones, self.p, self.training))
        return self.around(inner), x, constants

    def step(self, x: Any, state: Any, constants: DropoutConstants) -> tuple[Tensor, Any]:
        """One frame: ``constants.scale (B, R)``."""
        sizes = [numel(self.state_shapes[leaf]) for leaf in self.leaves]
        read = {}
        for leaf, scale in zip(self.leaves, constants.scale.split(sizes, -1), strict=True):
            value = getattr(state, leaf)
            read[leaf] = value * (scale.reshape(value.shape) if value.dim() > 2 else scale)
        return self.cell.step(x, state._replace(**read))


def recurrent_dropout(cell: Cell[Any], p: float, leaves: Sequence[str] = ("h",)) -> RecurrentDropout:
    r"""In training, let each sequence drop the same units of what its step reads of the state (Gal & Ghahramani, 2016).

    .. math::
        y_t, s_t = \mathrm{step}(x_t, m \odot s_{t-1}), \qquad (1 - p) m \sim \mathrm{Bernoulli}(1 - p)

    One mask a sequence, for all of its frames. In a GRU the dropped units lose what they carry, too.

    Args:
        cell: one without constants of its own.
        p: the part that is dropped.
        leaves: of the state; by default ``h``, which an LSTM reads through its recurrent matrix alone.

    Raises:
        OptionError, UnknownNameError, CellDefinitionError: as for :func:`zoneout`.

    Example:
        >>> from recurra import LSTMCell, scan
        >>> y, state = scan(recurrent_dropout(LSTMCell(3, 4), 0.25), torch.zeros(5, 2, 3))
        >>> y.shape
        torch.Size([5, 2, 4])
    """
    return RecurrentDropout(cell, p, leaves)


class WeightDrop(Wrapper):
    r"""See :func:`weight_drop`."""

    def __init__(self, cell: Cell[Any], p: float, weights: Sequence[str] = ("weight_hh",)):
        names = dict(cell.named_parameters())
        for name in weights:
            if name not in names:
                raise UnknownNameError(f"weight of {type(cell).__name__}", name, names)
        super().__init__(cell)
        self.p, self.weights = probability("p", p), tuple(weights)

    def prepare(self, x: Any, constants: Any) -> tuple[Cell[Any], Any, Any]:
        """Draw which weights are dropped, once a scan."""
        if self.training and self.p:
            known = dict(self.cell.named_parameters())
            dropped = {f"cell.{n}": nn.functional.dropout(known[n], self.p) for n in self.weights}
            made = self.bound(dropped)
            inner, x, constants = made.cell.prepare(x, constants)
            return made.around(inner), x, constants
        return super().prepare(x, constants)


def weight_drop(cell: Cell[Any], p: float, weights: Sequence[str] = ("weight_hh",)) -> WeightDrop:
    """In training, zero a part of the recurrent weights, drawn once a scan (Wan et al., 2013; Merity et al., 2018).

    Args:
        cell: any.
        p: the part that is dropped; what is left is scaled by 1 / (1 - p).
        weights: their names.

    Raises:
        OptionError: `p` is out of range. UnknownNameError: the cell has no such weight.

    Example:
        >>> from recurra import LSTMCell, scan
        >>> y, state = scan(weight_drop(LSTMCell(3, 4), 0.5), torch.zeros(5, 2, 3))
        >>> y.shape
        torch.Size([5, 2, 4])
    """
    return WeightDrop(cell, p, weights)


class Residual(Wrapper):
    r"""See :func:`residual`."""

    def step(self, x: Any, state: Any, *constants: Any) -> tuple[Tensor, Any]:
        """The inner cell's output, and its input on top."""
        y, new = self.cell.step(x, state, *constants)
        frame = x if isinstance(x, Tensor) else x[0]
        if y.shape != frame.shape:
            raise CellDefinitionError(
                f"residual needs an output as wide as the input of {type(self.cell).__name__}",
                received=f"an input of {tuple(frame.shape[1:])}, an output of {tuple(y.shape[1:])}",
            )
        return y + frame, new


def residual(cell: Cell[Any]) -> Residual:
    """Add the input to the output (He et al., 2016; in recurrent layers Wu et al., 2016): ``y_t = step(x_t) + x_t``.

    Args:
        cell: one with an output as wide as its input.

    Raises:
        CellDefinitionError: when it is run, if the widths differ.

    Example:
        >>> from recurra import GRUCell
        >>> y, state = residual(GRUCell(4, 4))(torch.ones(2, 4))
        >>> y.shape
        torch.Size([2, 4])
    """
    return Residual(cell)


class LearnedState(Wrapper):
    r"""See :func:`learned_state`."""

    def __init__(self, cell: Cell[Any]):
        super().__init__(cell)
        begun = cell.initial_state(1, like=next(cell.parameters(), None))
        self.initial = nn.ParameterList([nn.Parameter(leaf[0].detach().clone()) for leaf in begun])

    def initial_state(self, batch_size: int, *, like: Tensor | None = None) -> Any:
        """The learned one, the same for each sequence."""
        leaves = (p if like is None else p.to(like) for p in self.initial)
        return self.State(*(leaf.expand(batch_size, *leaf.shape) for leaf in leaves))


def learned_state(cell: Cell[Any]) -> LearnedState:
    """Learn the state before the first frame, and after a reset, instead of beginning from zeros.

    Args:
        cell: any; its own initial state is where learning starts.

    Example:
        >>> from recurra import LSTMCell, scan
        >>> cell = learned_state(LSTMCell(3, 4))
        >>> y, state = scan(cell, torch.zeros(5, 2, 3))
        >>> sorted(name for name, _ in cell.named_parameters() if name.startswith("initial"))
        ['initial.0', 'initial.1']
    """
    return LearnedState(cell)


WRAPPERS = {
    "zoneout": zoneout,
    "recurrent_dropout": recurrent_dropout,
    "weight_drop": weight_drop,
    "residual": residual,
    "learned_state": learned_state,
}
