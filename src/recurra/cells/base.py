"""The abstract cell: what an author writes, and what every executor may rely on."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, Self, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from recurra.errors import (
    CellDefinitionError,
    InputShapeError,
    InputTypeError,
    OptionError,
    StateShapeError,
    UnknownNameError,
)
from recurra.shapes import RESERVED, Shape, dims, extent, show

S = TypeVar("S", bound=tuple[Any, ...])
Init = str | tuple[float, ...] | Callable[[Tensor], Any]
_BLOCKS = re.compile(r"(\d+)[A-Z](?![A-Z+])")  # "4H D": four gate blocks


def _each_block(fill: Callable[[Tensor], Any]) -> Callable[[Tensor, int], None]:
    def apply(weight: Tensor, blocks: int) -> None:
        for block in weight.chunk(blocks):
            fill(block)

    return apply


# Gate blocks are initialised one by one: stacked, they would share one fan-out and one orthogonal basis.
INITS: dict[str, Callable[[Tensor, int], None]] = {
    "glorot": _each_block(nn.init.xavier_uniform_),  # Glorot & Bengio, 2010
    "orthogonal": _each_block(nn.init.orthogonal_),  # Saxe et al., 2014
    "zeros": _each_block(nn.init.zeros_),
    "ones": _each_block(nn.init.ones_),
}


class Cell(nn.Module, ABC, Generic[S]):
    """The mathematics of one step of a recurrent network: no time, no direction, no speed.

    A subclass names its state (a NamedTuple), makes its weights in ``__init__`` and writes ``step``. How it runs over
    time is derived from ``step`` by :func:`recurra.scan`.

    A leaf of a state is ``(B, H)`` unless it says otherwise: ``h: Annotated[Tensor, "P"]`` is ``(B, P)``, and
    ``c: Annotated[Tensor, "H K"]`` is a matrix a sequence. A cell may also declare ``Constants``, a NamedTuple of
    tensors ``(B, ...)`` that stay the same through a sequence (a dropout mask, an attention memory); its step is then
    ``step(x, state, constants)``. An ``Input`` NamedTuple makes ``x`` a structure of several tensors.

    Args:
        input_size: D, the width of an input frame.
        hidden_size: H, the number of units.
        letters: sizes of further letters used in shapes, such as ``P=proj_size``.

    Raises:
        CellDefinitionError: the state, constants or input type is no NamedTuple of tensors.
        OptionError: a size is not a positive integer, or a letter is reserved.

    Example:
        >>> class LightState(NamedTuple):
        ...     h: Tensor
        >>> class Light(Cell[LightState]):
        ...     State = LightState
        ...     def __init__(self, input_size, hidden_size):
        ...         super().__init__(input_size, hidden_size)
        ...         self.weight_ih = self.weight("2H D")
        ...         self.weight_hh = self.weight("2H H", init="orthogonal")
        ...     def step(self, x, state):
        ...         gates = nn.functional.linear(x, self.weight_ih) + nn.functional.linear(state.h, self.weight_hh)
        ...         z, n = gates.chunk(2, -1)
        ...         h = torch.lerp(state.h, n.relu(), z.sigmoid())
        ...         return h, LightState(h)
        >>> y, state = Light(3, 4)(torch.zeros(2, 3))
        >>> state.h.shape
        torch.Size([2, 4])
    """

    State: ClassVar[type]
    Constants: ClassVar[type | None] = None
    Input: ClassVar[type | None] = None
    # Which biases set how long a unit remembers, and the sign with which the logarithm of that time enters each gate
    # block: recurra.chrono reads it.
    memory: ClassVar[Mapping[str, tuple[int, ...]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "State" not in cls.__dict__:  # Cell[LightState] already says which state it is
            for base in getattr(cls, "__orig_bases__", ()):
                named = get_args(base)
                if (
                    isinstance(get_origin(base), type)
                    and issubclass(get_origin(base), Cell)
                    and isinstance(named[0], type)
                ):
                    cls.State = named[0]

    def __init__(self, input_size: int, hidden_size: int, **letters: int) -> None:
        super().__init__()
        sizes = {"D": input_size, "H": hidden_size, **letters}
        for letter, size in sizes.items():
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise OptionError(f"{letter} must be a positive integer", received=repr(size))
            if letter in RESERVED or len(letter) != 1 or not letter.isupper():
                raise OptionError(
                    f"{letter!r} cannot name a size of a cell",
                    instead=f"one capital letter that is none of {' '.join(sorted(RESERVED))}",
                )
        self.input_size, self.hidden_size, self.sizes = input_size, hidden_size, sizes
        self._weight_specs: dict[str, tuple[str, Init]] = {}
        if getattr(type(self), "State", None) is None:
            raise CellDefinitionError(
                f"{type(self).__name__} does not say what its state is",
                instead="class MyState(NamedTuple): h: Tensor, and class MyCell(Cell[MyState])",
            )
        self.state_shapes = self._leaf_shapes("State", "H")
        self.constant_shapes = self._leaf_shapes("Constants", "H") if self.Constants else {}
        self.input_shapes = self._leaf_shapes("Input", "D") if self.Input else {"x": dims("D", sizes)}

    def _leaf_shapes(self, role: str, default: str) -> dict[str, Shape]:
        declared = getattr(self, role)
        if not (isinstance(declared, type) and issubclass(declared, tuple) and hasattr(declared, "_fields")):
            raise CellDefinitionError(
                f"{type(self).__name__}.{role} must be a NamedTuple class",
                received=repr(declared),
                instead=f"class {role}(NamedTuple): h: Tensor",
            )
        shapes = {}
        for leaf, hint in get_type_hints(declared, include_extras=True).items():
            spec = (
                next((a for a in get_args(hint)[1:] if isinstance(a, str)), default)
                if get_origin(hint) is Annotated
                else default
            )
            shapes[leaf] = dims(spec, self.sizes)
        return shapes

    def weight(self, shape: str, *, init: Init | None = None) -> nn.Parameter:
        """Make a weight from a shape in letters, initialised.

        Args:
            shape: such as ``"4H D"``: four gate blocks, each ``(H, D)``, stacked.
            init: ``"glorot"`` (the default of matrices), ``"orthogonal"``, ``"zeros"`` (the default of vectors),
                ``"ones"``; a number for each gate block, such as ``(0, 1, 0, 0)``; or a function that fills a tensor.

        Raises:
            ShapeSpecError: the shape cannot be read. OptionError: the initialisation is not known.
        """
        init = ("glorot" if len(shape.split()) > 1 else "zeros") if init is None else init
        parameter = nn.Parameter(torch.empty(extent(dims(shape, self.sizes))))
        _fill(parameter, shape, init)
        parameter.__dict__["_spec"] = (shape, init)  # until it has a name
        return parameter

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, nn.Parameter) and "_spec" in value.__dict__:
            self._weight_specs[name] = value.__dict__.pop("_spec")

    def reset_parameters(self) -> None:
        """Draw all weights made by :meth:`weight` anew."""
        for name, (shape, init) in self._weight_specs.items():
            _fill(getattr(self, name), shape, init)

    @abstractmethod
    def step(self, *args: Any, **kwargs: Any) -> tuple[Tensor, S]:
        """One frame: ``step(x, state) -> (y, state)``, or ``step(x, state, constants)`` where constants are declared.

        ``x`` is ``(B, D)``, each leaf of the state ``(B, ...)`` in its declared shape, ``y`` any ``(B, ...)``.
        """

    def initial_state(self, batch_size: int, *, like: Tensor | None = None) -> S:
        """The state before the first frame, and after a reset: zeros, in the dtype and on the device of `like`."""
        like = next(self.parameters(), None) if like is None else like
        dtype, device = (None, None) if like is None else (like.dtype, like.device)
        shapes = self.state_shapes.values()
        return self.State(*[torch.zeros(batch_size, *extent(s), dtype=dtype, device=device) for s in shapes])  # type: ignore[no-any-return]

    def prepare(self, x: Any, constants: Any) -> tuple["Cell[S]", Any, Any]:
        """What one scan, or one call, really runs: called once before it, with what the user gave.

        The place to draw what is random (dropout masks), so that the step itself is a function of its arguments.

        Returns:
            ``(cell, x, constants)``: the cell, or :meth:`bound` to other weights; `x` and `constants` with their masks.
        """
        return self, x, constants

    def bound(self, weights: Mapping[str, Tensor]) -> Self:
        """The same cell on other tensors in place of some weights; what is derived from it is shared, no weight copied.

        Args:
            weights: by the path of the parameter or buffer, of its shape.

        Example:
            >>> class Decay(Cell[HiddenState]):
            ...     def __init__(self, D, H):
            ...         super().__init__(D, H)
            ...         self.rate = self.weight("H")
            ...     def step(self, x, state):
            ...         h = self.rate * state.h + x
            ...         return h, HiddenState(h)
            >>> y, state = Decay(2, 2).bound({"rate": torch.ones(2)})(torch.ones(1, 2), HiddenState(torch.ones(1, 2)))
            >>> y
            tensor([[2., 2.]])
        """
        made: Self = _bound(self, weights)
        made.__dict__["_bound_from"] = self.origin
        return made

    @property
    def origin(self) -> "Cell[S]":
        """The cell that this one is bound from, or itself."""
        return self.__dict__.get("_bound_from", self)  # type: ignore[no-any-return]

    def forward(self, x: Any, state: S | None = None, constants: Any = None) -> tuple[Tensor, S]:
        """One step, as :class:`torch.nn.LSTMCell` is used: ``y, state = cell(x_t, state)``.

        Args:
            x: ``(B, D)`` one frame. state: leaves ``(B, ...)``; None is :meth:`initial_state`.
            constants: the cell's ``Constants`` where it declares them.

        Raises:
            InputShapeError: `x` is not ``(B, D)``. StateShapeError: a leaf of `state` has another shape.
        """
        cell, x, constants = self.prepare(x, constants)
        batch_size = cell.check_input(x, axes=("B",))[0]
        first: Tensor = x if self.Input is None else x[0]
        state = cell.initial_state(batch_size, like=first) if state is None else cell.check_state(state, batch_size)
        return cell.step(x, state, constants) if self.Constants else cell.step(x, state)

    def check_input(self, x: Any, axes: tuple[str, ...]) -> tuple[int, ...]:
        """The sizes of the leading `axes` of `x`, or an error that says what does not fit."""
        leaves = (x,) if self.Input is None else tuple(x) if isinstance(x, tuple) else ()
        if len(leaves) != len(self.input_shapes) or not all(isinstance(v, Tensor) for v in leaves):
            raise InputTypeError(
                f"{type(self).__name__}: x must be {'a tensor' if self.Input is None else self.Input.__name__}",
                received=type(x).__name__,
            )
        weight = _first_weight(self)
        lead: tuple[int, ...] | None = None
        for (name, shape), value in zip(self.input_shapes.items(), leaves, strict=True):
            wanted = extent(shape)
            if value.dim() != len(axes) + len(wanted) or tuple(value.shape[len(axes) :]) != wanted:
                received = f"{tuple(value.shape)}"
                full = f"({', '.join(axes)}, {show(shape)[1:]}"
                sizes = f"({', '.join(axes)}, {', '.join(map(str, wanted))})"
                raise InputShapeError(f"{type(self).__name__}: {name} must be {full} = {sizes}", received=received)
            if lead is not None and tuple(value.shape[: len(axes)]) != lead:
                raise InputShapeError(
                    f"{type(self).__name__}: the parts of x must agree in ({', '.join(axes)})",
                    received=f"{lead} and {tuple(value.shape[: len(axes)])}",
                )
            lead = tuple(value.shape[: len(axes)])
            if weight is not None and value.dtype != weight.dtype and not autocasts(value.device.type):
                raise InputTypeError(
                    f"{type(self).__name__}: {name} and the weights must have one dtype",
                    received=f"{name} {value.dtype}, weights {weight.dtype}",
                    instead=f"{name}.to({weight.dtype}), or cell.to({value.dtype})",
                )
            if weight is not None and value.device != weight.device:
                raise InputTypeError(
                    f"{type(self).__name__}: {name} and the weights must be on one device",
                    received=f"{name} on {value.device}, weights on {weight.device}",
                )
        assert lead is not None
        return lead

    def check_state(self, state: Any, batch_size: int) -> S:
        """`state` as the cell's own NamedTuple, or an error that says which leaf does not fit."""
        return self._check_leaves("State", state, self.state_shapes, batch_size)  # type: ignore[no-any-return]

    def check_constants(self, constants: Any, batch_size: int) -> Any:
        """`constants` as the cell's own NamedTuple, or an error that says which leaf does not fit."""
        if not self.constant_shapes and constants is None:
            return None
        return self._check_leaves("Constants", constants, self.constant_shapes, batch_size)

    def _check_leaves(self, role: str, given: Any, shapes: dict[str, Shape], batch_size: int) -> Any:
        name, kind = type(self).__name__, getattr(self, role)
        build = f"{kind.__name__ if kind else role}({', '.join(f'{leaf}=...' for leaf in shapes)})"
        instead = f"cell.initial_state({batch_size}, like=x), or {build}" if role == "State" else build
        if not isinstance(given, tuple) or len(given) != len(shapes):
            raise StateShapeError(
                f"{name}: the {role.lower()} must be {build}",
                received=f"{type(given).__name__}" + (f" of {len(given)}" if isinstance(given, tuple | list) else ""),
                instead=instead,
            )
        for (leaf, shape), value in zip(shapes.items(), given, strict=True):
            wanted = (batch_size, *extent(shape))
            if not isinstance(value, Tensor) or tuple(value.shape) != wanted:
                raise StateShapeError(
                    f"{name}: {role.lower()}.{leaf} must be (B, {show(shape)[1:]} = {wanted}",
                    received=f"{tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}",
                    instead=instead,
                )
        return kind(*given)

    def extra_repr(self) -> str:
        """The sizes, for printing."""
        return ", ".join(f"{letter}={size}" for letter, size in self.sizes.items())


def autocasts(device: str) -> bool:
    """Whether autocast is on for a type of device."""
    return device != "meta" and torch.is_autocast_enabled(device)  # which would not know it


def _first_weight(module: nn.Module) -> nn.Parameter | None:
    """The first of its parameters(), whose making costs more than all that is checked with it."""
    for weight in module._parameters.values():
        if weight is not None:
            return weight
    below = (_first_weight(child) for child in module._modules.values() if child is not None)
    return next((weight for weight in below if weight is not None), None)


def _bound(module: Any, weights: Mapping[str, Tensor]) -> Any:
    made = object.__new__(type(module))
    made.__dict__.update(module.__dict__)
    for kind in ("_parameters", "_buffers"):
        made.__dict__[kind] = {name: weights.get(name, value) for name, value in module.__dict__[kind].items()}
    below = {path.partition(".")[0] for path in weights if "." in path}
    made.__dict__["_modules"] = {
        name: _bound(child, {p.removeprefix(f"{name}."): v for p, v in weights.items() if p.startswith(f"{name}.")})
        if name in below
        else child
        for name, child in module.__dict__["_modules"].items()
    }
    return made


def _fill(weight: Tensor, shape: str, init: Init) -> None:
    if weight.is_meta:  # nothing to fill, and torch.func may forbid to draw
        return
    head = _BLOCKS.match(shape)
    blocks = int(head[1]) if head else 1
    with torch.no_grad():
        if isinstance(init, str):
            if init not in INITS:
                raise UnknownNameError("initialisation", init, INITS)
            INITS[init](weight, blocks)
        elif isinstance(init, tuple):
            if len(init) != blocks:
                raise OptionError(
                    f"the weight {shape!r} has {blocks} blocks", received=f"{len(init)} constants to fill them"
                )
            for block, value in zip(weight.chunk(blocks), init, strict=True):
                block.fill_(value)
        else:
            init(weight)


class HiddenState(NamedTuple):
    """The state of cells that carry one vector."""

    h: Tensor  # (B, H) hidden state: what the next layer reads
