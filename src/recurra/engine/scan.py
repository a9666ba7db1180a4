"""The functional core: a cell over time."""

from typing import Any

from torch import Tensor

from recurra.cells import Cell
from recurra.engine.operator import opaque
from recurra.engine.options import current_options
from recurra.engine.plan import execute
from recurra.engine.request import Request, check_lengths, check_reset, seen
from recurra.errors import OptionError


def scan(
    cell: Cell[Any],
    x: Any,
    state: Any = None,
    *,
    constants: Any = None,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_states: bool = False,
) -> Any:
    """Run `cell` over time, by the fastest executor that can.

    Args:
        cell: any :class:`~recurra.Cell`; its ``step`` defines the result, and is called once a frame, or never, if it
            can be derived.
        x: ``(T, B, D)`` inputs, time first; a NamedTuple of such for a cell that declares ``Input``.
        state: the cell's ``State``, each leaf ``(B, ...)``. None means ``cell.initial_state``.
        constants: the cell's ``Constants``, each leaf ``(B, ...)``, for a cell that declares them.
        lengths: ``(B,)`` integers, ``0 <= lengths <= T``, in any order, on any device. Frames ``t >= lengths[b]`` are
            never read; they leave the state of sequence ``b`` untouched and their outputs are exactly zero.
        reset: ``(T, B)`` bool. Where it is set, a segment begins: the state becomes ``cell.initial_state`` before that
            frame. A reversed run resets between ``t`` and ``t - 1``.
        reverse: run from the last valid frame of each sequence to its first. Outputs stay in input order and padding
            stays at the end.
        return_states: give the state after every frame as well.

    Returns:
        ``(y, state)``: ``y`` is ``(T, B, ...)``; ``state`` is the state after the last frame that ran. With
        `return_states` ``(y, state, states)``, each leaf of ``states`` being ``(T, B, ...)``.

    Raises:
        InputShapeError, InputTypeError, NaNInputError, StateShapeError, LengthsError, ResetError: an argument does not
            fit; the message says how.
        UnderivableStepError, ExecutorError: an executor was chosen by :func:`recurra.options` that cannot run this.

    Example:
        >>> import torch
        >>> from recurra import LSTMCell
        >>> cell = LSTMCell(input_size=3, hidden_size=4)
        >>> y, state = scan(cell, torch.zeros(5, 2, 3), lengths=torch.tensor([5, 3]))
        >>> y.shape, state.c.shape
        (torch.Size([5, 2, 4]), torch.Size([2, 4]))
    """
    y, last, states = _leaves(cell, x, state, constants, lengths, reset, reverse, return_states)
    if not return_states:
        return y, cell.State(*last)
    return y, cell.State(*last), cell.State(*states)


@opaque
def _leaves(cell: Cell[Any], *arguments: Any) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The output, the last state and the states of all frames: what goes back to Dynamo must be plain."""
    result = execute(make_request(cell, *arguments))
    return result.y, result.state, result.states or ()


def _run_hooks(cell: Cell[Any], *arguments: Any) -> None:
    """What sets weights before each call: torch.nn.utils.prune and the old weight_norm and spectral_norm do."""
    for key, hook in cell._forward_pre_hooks.items():
        more: tuple[Any, ...] = ({},) if key in cell._forward_pre_hooks_with_kwargs else ()
        if hook(cell, arguments, *more) is not None:
            raise OptionError(
                f"a forward pre-hook of {type(cell).__name__} changes its arguments, which is no part of a scan",
                received=getattr(hook, "__qualname__", type(hook).__name__),
                instead="change x before the scan; weights by torch.nn.utils.parametrize",
            )


def make_request(
    cell: Cell[Any],
    x: Any,
    state: Any = None,
    constants: Any = None,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_states: bool = False,
) -> Request:
    """Check the arguments of a scan and put them into one form."""
    if cell._forward_pre_hooks:
        _run_hooks(cell, x, state, constants)
    cell, x, constants = cell.prepare(x, constants)
    T, B = cell.check_input(x, axes=("T", "B"))
    leaves = (x,) if cell.Input is None else tuple(x)
    lengths = None if lengths is None else check_lengths(lengths, T, B)
    reset = None if reset is None else check_reset(reset, T, B)
    first = cell.initial_state(B, like=leaves[0]) if state is None else cell.check_state(state, B)
    fixed = cell.check_constants(constants, B) or ()
    options = current_options()
    look = options.check_nan and not seen()  # the operator looks when it runs
    return Request(
        cell, leaves, tuple(first), tuple(fixed), lengths, reset, reverse, return_states, options.weights, look
    )
