"""torch.nn's RNN, LSTM and GRU: their arguments, parameters and results, and what they cannot do besides."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from recurra.cells import Cell, GRUCell, LSTMCell, LSTMPCell, RNNCell
from recurra.cells.base import autocasts
from recurra.engine import current_options, scan
from recurra.engine.operator import opaque
from recurra.engine.request import plainly
from recurra.errors import InputTypeError, LengthsError, ResetError
from recurra.kernels.cpu import native
from recurra.layers.stream import Streamed

Weights = dict[str, Tensor]


def _one_bias(module: nn.RNNBase, of: Callable[[str], Tensor]) -> Weights:
    """torch.nn has two biases where the equations have one."""
    bias = of("bias_ih") + of("bias_hh") if module.bias else of("weight_ih").new_zeros(len(of("weight_ih")))
    projection = {"weight_hr": of("weight_hr")} if module.proj_size else {}
    return {"weight_ih": of("weight_ih"), "weight_hh": of("weight_hh"), "bias": bias, **projection}


def _gru_biases(module: nn.RNNBase, of: Callable[[str], Tensor]) -> Weights:
    """The candidate's second bias stands behind the reset gate, so it stays apart."""
    H, weight = module.hidden_size, of("weight_ih")
    inner, outer = (of("bias_ih"), of("bias_hh")) if module.bias else (weight.new_zeros(3 * H),) * 2
    bias = torch.cat([inner[: 2 * H] + outer[: 2 * H], inner[2 * H :]])
    return {"weight_ih": weight, "weight_hh": of("weight_hh"), "bias": bias, "bias_hn": outer[2 * H :]}


# torch.nn's mode -> the cell of that mathematics, and its weights from torch.nn's.
MODES: dict[str, tuple[Callable[[int, int, int], Cell[Any]], Callable[[Any, Any], Weights]]] = {
    "RNN_TANH": (lambda D, H, P: RNNCell(D, H), _one_bias),
    "RNN_RELU": (lambda D, H, P: RNNCell(D, H, nonlinearity="relu"), _one_bias),
    "LSTM": (lambda D, H, P: LSTMPCell(D, H, P) if P else LSTMCell(D, H), _one_bias),
    "GRU": (lambda D, H, P: GRUCell(D, H), _gru_biases),
}


@functools.lru_cache(maxsize=1024)
def _skeleton(mode: str, D: int, H: int, P: int) -> Cell[Any]:
    """A cell without memory for weights, to be bound to some; what is derived from it serves all of its sizes."""
    with plainly(), torch.device("meta"):  # the first call may be a compiler's, whose tensors must not be kept
        return MODES[mode][0](D, H, P)


class _Layer(Streamed):
    """What the three have in common; stands before a class of torch.nn, whose attributes it reads."""

    # The parameters stay torch.nn's own, under their names, and are looked up in each call: so whatever replaces them
    # (parametrisations, torch.func, sharded training) is seen, and isinstance(layer, torch.nn.LSTM) holds.

    @opaque
    def forward(
        self: Any,
        input: Tensor | PackedSequence,
        hx: Any = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        return_states: bool = False,
    ) -> Any:
        """Run over time.

        Args:
            input: ``(T, B, D)``, ``(B, T, D)`` with `batch_first`, ``(T, D)`` for one sequence, or a PackedSequence.
            hx: the initial state as torch.nn takes it: ``(L * directions, B, H)``; for an LSTM a pair of such.
            lengths: ``(B,)`` integers, 0 to T, in any order: frames past them give outputs of exactly zero and leave
                the state as it is. Takes the place of packing.
            reset: bool, ``(T, B)``, or ``(B, T)`` with `batch_first`: begin anew, from zeros, at that frame.
            return_states: give the state after every frame as well.

        Returns:
            ``(output, hx)`` as torch.nn gives them. With `return_states` a third, like ``hx`` with an axis of time:
            ``(L * directions, T, B, H)``, or ``(L * directions, B, T, H)`` with `batch_first`; of a PackedSequence
            padded, time first.

        Raises:
            RuntimeError, ValueError: torch.nn's own, where shapes or dtypes do not fit.
            InputTypeError, LengthsError, ResetError: see the message.
        """
        if not isinstance(input, Tensor | PackedSequence):
            raise InputTypeError(
                f"{type(self).__name__} takes a tensor or a PackedSequence", received=type(input).__name__
            )
        if isinstance(input, PackedSequence):
            return self._packed(input, hx, lengths, reset, return_states)
        if lengths is None and reset is None and not return_states and _left_to_torch(input):
            return super().forward(input, hx)  # type: ignore[misc]  # all layers in one call of the same kernels
        single = input.dim() == 2
        if single and lengths is not None:
            raise LengthsError("a single sequence has its length already")
        batch = 0 if self.batch_first else 1
        if single:
            input, reset = input.unsqueeze(batch), None if reset is None else reset.unsqueeze(batch)
        if input.dim() != 3:
            raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        state = self._leaves(hx, single)
        if state is None:
            self.check_input(input, None)
        else:
            self.check_forward_args(input, state if self.mode == "LSTM" else state[0], None)
        if self.batch_first:
            input, reset = input.transpose(0, 1), None if reset is None else reset.t()
        y, last, every = self._run(input, state, lengths, reset, return_states)
        if self.batch_first:
            y, every = y.transpose(0, 1), tuple(v.transpose(1, 2) for v in every)
        if single:
            y, last = y.squeeze(batch), tuple(v.squeeze(1) for v in last)
            every = tuple(v.squeeze(1 + batch) for v in every)
        return (y, self._shaped(last), self._shaped(every)) if return_states else (y, self._shaped(last))

    def cells(self: Any) -> list[Cell[Any]]:
        """All cells, layer by layer, forward before backward, on the parameters as they are now."""
        return [cell for cells in self._cells() for cell in cells]

    def _packed(
        self: Any, input: PackedSequence, hx: Any, lengths: Tensor | None, reset: Tensor | None, return_states: bool
    ) -> Any:
        """A PackedSequence in, one out: packed frames are those of padded input with its lengths."""
        if lengths is not None:
            raise LengthsError("a PackedSequence has its length already")
        if reset is not None:
            raise ResetError("resets need a padded input", instead="pad_packed_sequence, and lengths=")
        state = self._leaves(hx, single=False)
        if state is not None:
            self.check_forward_args(input.data, state if self.mode == "LSTM" else state[0], input.batch_sizes)
        x, lengths = pad_packed_sequence(input)
        y, last, every = self._run(x, state, lengths, None, return_states)
        if input.sorted_indices is not None:
            y, lengths = y.index_select(1, input.sorted_indices), lengths[input.sorted_indices.to(lengths.device)]
        valid = (torch.arange(len(y))[:, None] < lengths).to(y.device)
        output = PackedSequence(y[valid], input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        return (output, self._shaped(last), self._shaped(every)) if return_states else (output, self._shaped(last))

    def _shaped(self: Any, leaves: tuple[Tensor, ...]) -> Any:
        """A state as torch.nn gives it."""
        return leaves if self.mode == "LSTM" else leaves[0]

    def _leaves(self: Any, hx: Any, single: bool) -> tuple[Tensor, ...] | None:
        """The initial state, each leaf ``(L * directions, B, H)``."""
        if hx is None:
            return None
        leaves = tuple(hx) if self.mode == "LSTM" else (hx,)
        for leaf in leaves:
            if leaf.dim() != (2 if single else 3):
                kind = "unbatched 2-D" if single else "batched 3-D"
                raise RuntimeError(f"For {kind} input, hx should also be {2 if single else 3}-D, got {leaf.dim()}-D")
            if leaf.dtype != self.weight_hh_l0.dtype and not autocasts(leaf.device.type):
                raise RuntimeError(f"hx must be of the weights' dtype {self.weight_hh_l0.dtype}, got {leaf.dtype}")
        return tuple(leaf.unsqueeze(1) for leaf in leaves) if single else leaves

    def _run(
        self: Any, x: Tensor, state: tuple[Tensor, ...] | None, lengths: Any, reset: Any, return_states: bool
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """All layers and directions over ``x (T, B, D)``."""
        last: list[tuple[Tensor, ...]] = []
        every: list[tuple[Tensor, ...]] = []
        for k, cells in enumerate(self._cells()):
            if k and self.dropout:
                x = nn.functional.dropout(x, self.dropout, self.training)
            outputs = []
            for direction, cell in enumerate(cells):
                at = len(last)
                start = None if state is None else cell.State(*(leaf[at] for leaf in state))
                y, *found = scan(
                    cell,
                    x,
                    start,
                    lengths=lengths,
                    reset=reset,
                    reverse=bool(direction),
                    return_states=return_states,
                )
                outputs.append(y)
                last.append(found[0])
                every += found[1:]
            x = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
        side_by_side = lambda states: tuple(map(torch.stack, zip(*states, strict=True)))
        return x, side_by_side(last), side_by_side(every)

    def _cells(self: Any) -> Iterator[list[Cell[Any]]]:
        """The cells of each layer, forward before backward, bound to the parameters as they are now."""
        width, suffixes = self.input_size, ("", "_reverse") if self.bidirectional else ("",)
        for k in range(self.num_layers):
            skeleton = _skeleton(self.mode, width, self.hidden_size, self.proj_size)
            yield [
                skeleton.bound(MODES[self.mode][1](self, lambda name, end=end: getattr(self, f"{name}_l{k}{end}")))  # noqa: B023
                for end in suffixes
            ]
            width = (self.proj_size or self.hidden_size) * len(suffixes)


def _left_to_torch(input: Tensor) -> bool:
    """Whether torch's own forward, all layers in one call, is what the plan comes to, or what ONNX has words for."""
    options = current_options()
    if options.save != "all" or torch._C._are_functorch_transforms_active():
        return False
    theirs = input.device.type != "cpu" or native() is None or torch.onnx.is_in_onnx_export()
    return (options.executor == "auto" and theirs) or options.executor == "torch"


class RNN(_Layer, nn.RNN):
    """:class:`torch.nn.RNN`, with ``lengths``, ``reset`` and ``return_states``; packed input runs at padded speed.

    Takes torch.nn's arguments, holds its parameters under its names, and is an instance of it.

    Example:
        >>> layer = RNN(3, 4, nonlinearity="relu", batch_first=True)
        >>> _ = layer.load_state_dict(torch.nn.RNN(3, 4).state_dict())
        >>> y, h = layer(torch.zeros(2, 5, 3), lengths=torch.tensor([5, 2]))
        >>> y.shape, h.shape
        (torch.Size([2, 5, 4]), torch.Size([1, 2, 4]))
    """


class LSTM(_Layer, nn.LSTM):
    """:class:`torch.nn.LSTM`, with ``lengths``, ``reset`` and ``return_states``; packed input runs at padded speed.

    Takes torch.nn's arguments, ``proj_size`` included, holds its parameters under its names, and is an instance of it.

    Example:
        >>> layer = LSTM(3, 4, num_layers=2, bidirectional=True)
        >>> y, (h, c), (hs, cs) = layer(torch.zeros(5, 2, 3), return_states=True)
        >>> y.shape, h.shape, cs.shape
        (torch.Size([5, 2, 8]), torch.Size([4, 2, 4]), torch.Size([4, 5, 2, 4]))
    """


class GRU(_Layer, nn.GRU):
    """:class:`torch.nn.GRU`, with ``lengths``, ``reset`` and ``return_states``; packed input runs at padded speed.

    Takes torch.nn's arguments, holds its parameters under its names, and is an instance of it.

    Example:
        >>> layer = GRU(3, 4, batch_first=True)
        >>> y, h = layer(torch.zeros(2, 5, 3), reset=torch.eye(2, 5, dtype=torch.bool))
        >>> y.shape, h.shape
        (torch.Size([2, 5, 4]), torch.Size([1, 2, 4]))
    """
