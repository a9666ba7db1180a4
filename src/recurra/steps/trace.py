"""Turn ``step`` into a graph by calling it once with symbols.

The step is ordinary Python over torch: symbols stand for its input, state and constants, a mode sees each torch
call, and what is computed from weights alone runs for real. Nothing is baked in: a tensor that is no symbol, no weight
and not computed from weights is an error, and so is a step whose graph depends on the batch size.
"""

import inspect
import linecache
import sys
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recurra.errors import CellDefinitionError, RecurraError, UnderivableStepError
from recurra.shapes import Dim, Shape, extent, show
from recurra.steps.graph import Builder, Expr, Node, Ref, StepGraph
from recurra.steps.vocabulary import OF_MASKS, PASSED_THROUGH, RULES, Refusal, converted, is_mask

_INSIDE = (torch.__path__[0], __file__.rpartition("trace.py")[0])


class Symbol(Tensor):
    """Stands for a value of the step: it has a shape and a dtype, and a node in place of numbers."""

    expr: Expr

    @staticmethod
    def __new__(cls, expr: Expr, batch_size: int, dtype: torch.dtype, device: torch.device) -> "Symbol":
        size = (batch_size, *expr.sizes)
        symbol: Symbol = torch.Tensor._make_wrapper_subclass(cls, size, dtype=dtype, device=device)
        symbol.expr = expr
        return symbol

    def __init__(self, *_: Any) -> None:
        super().__init__()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise UnderivableStepError(
            f"a value of a step was used outside of it, by {func}", instead="return it from step instead of storing it"
        )


class Signature(NamedTuple):
    """The leaves of a step, by role: names and shapes in letters."""

    inputs: Mapping[str, Shape]
    state: Mapping[str, Shape]
    constants: Mapping[str, Shape]
    weights: Mapping[str, tuple[Tensor, Shape]]  # by the path of the attribute


def trace(
    step: Any, signature: Signature, pack: Any, *, owner: str, dtype: torch.dtype, device: torch.device
) -> StepGraph:
    """The graph of one step.

    Args:
        step: called as ``step(*pack(inputs, state, constants))`` with tuples of symbols.
        signature: what its leaves are.
        pack: puts leaves into the arguments of `step`.
        owner: the cell's name, for messages.
        dtype, device: what symbols claim to be.

    Raises:
        UnderivableStepError: an operation is outside of the vocabulary, or a value depends on the batch size; the
            message names the operation and the line of source.
        CellDefinitionError: the step does not return ``(y, state)`` with leaves of the declared shapes.
    """
    first, *others = (_Tracer(step, signature, pack, owner, size, dtype, device).run() for size in _BATCHES)
    for size, other in zip(_BATCHES[1:], others, strict=True):
        pairs = [(a, b) for (_, a), (_, b) in zip(first, other, strict=False)]
        of = next(((f"{a.op} {show(a.shape)}", f"{b.op} {show(b.shape)}") for a, b in pairs if not _same(a, b)), None)
        if len(first.nodes) != len(other.nodes):
            of = (f"{len(first.nodes)} operations", f"{len(other.nodes)}")
        if of is not None:
            raise UnderivableStepError(
                f"{owner}.step computes something from the batch size, or asks whether gradients are on",
                received=f"{of[0]} for {_BATCHES[0]} sequences, {of[1]} for {size}, without gradients",
                instead="let shapes broadcast over the leading axis; detach() in place of torch.no_grad()",
            )
    return first


# What is taken from the batch size (a weight expanded over it, a sum over it, a branch for one sequence or for many)
# differs between them, and so does what is chosen by torch.is_grad_enabled(), which no mode sees: with the
# first, gradients are on.
_BATCHES = (2, 1, 61)


def _same(a: Node, b: Node) -> bool:
    return (a.op, a.args, extent(a.shape)) == (b.op, b.args, extent(b.shape)) and _alike(a.attrs, b.attrs)


def _alike(a: Any, b: Any) -> bool:
    """Whether attributes are the same: plain values and what holds them; other objects count as the same."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    return repr(a) == repr(b) if isinstance(a, bool | int | float | str | slice) else True  # NaN is NaN


class _Tracer(TorchFunctionMode):
    def __init__(
        self,
        step: Any,
        signature: Signature,
        pack: Any,
        owner: str,
        batch_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        super().__init__()
        self.step, self.signature, self.pack, self.owner = step, signature, pack, owner
        self.batch_size, self.dtype, self.device = batch_size, dtype, device
        self.gradients = batch_size == _BATCHES[0]
        self.builder = Builder()
        self.masks: set[int] = set()  # the weights among the nodes that are booleans
        self.weights: dict[int, tuple[Tensor, Expr]] = {}  # by id; the tensor is held, so that its id stays its own

    def run(self) -> StepGraph:
        signature = self.signature
        leaves = {
            role: [self.symbol(self.builder.leaf(role, name, shape)) for name, shape in shapes.items()]
            for role, shapes in (
                ("input", signature.inputs),
                ("state", signature.state),
                ("constant", signature.constants),
            )
        }
        for path, (tensor, shape) in signature.weights.items():
            if id(tensor) not in self.weights:  # a shared weight keeps its first name
                self.weights[id(tensor)] = (tensor, self.builder.leaf("weight", path, shape))
        with torch.set_grad_enabled(self.gradients), self:
            try:
                returned = self.step(*self.pack(leaves["input"], leaves["state"], leaves["constant"]))
                y, state = self.checked(returned)
            except RecurraError:
                raise
            except Refusal as refusal:
                raise UnderivableStepError(
                    f"{self.owner}.step cannot be derived: {refusal.what}",
                    received="what it returned",
                    instead=refusal.instead,
                ) from None
            except Exception as error:  # the plain loop may run it all the same, and raises it if not
                raise UnderivableStepError(
                    f"{self.owner}.step cannot be derived: an error stopped it on values that stand for others",
                    received=f"{type(error).__name__} at {_source_of(error)}: {error}",
                    instead='recurra.options(executor="reference"), or operations of the vocabulary',
                ) from None
        ids = {role: [s.expr.node for s in symbols] for role, symbols in leaves.items()}
        return self.builder.graph(
            inputs=ids["input"], states=ids["state"], constants=ids["constant"], outputs=[y], next_states=state
        )

    def checked(self, returned: Any) -> tuple[int, list[int]]:
        """The nodes of the output and of the next state, or an error in what the step returned."""
        shapes = self.signature.state
        right = isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], tuple)
        if not right or len(returned[1]) != len(shapes) or not isinstance(returned[0], Tensor):
            raise CellDefinitionError(
                f"{self.owner}.step must return (y, state), the state with leaves {', '.join(shapes)}",
                received=type(returned).__name__,
            )
        nodes = []
        for (leaf, shape), value in zip(shapes.items(), returned[1], strict=True):
            expr = self.returned(value, f"the next state's {leaf}")
            if expr.sizes != extent(shape) and not isinstance(value, Symbol):
                raise Refusal(f"the next state's {leaf} is a weight of another shape", "zeros_like(...) + weight")
            if expr.sizes != extent(shape):
                raise CellDefinitionError(
                    f"{self.owner}.step must return state.{leaf} of shape (B, {show(shape)[1:]}",
                    received=f"(B, {show(expr.shape)[1:]}",
                )
            nodes.append(expr.node)
        return self.returned(returned[0], "the output").node, nodes

    def returned(self, value: Any, where: str) -> Expr:
        """What a step gives back, as a node."""
        expr = self.lift(value, where)
        if is_mask(self, expr):
            raise Refusal(f"{where} is a comparison", "mask.to(x.dtype)")
        return expr

    def symbol(self, expr: Expr) -> Symbol:
        return Symbol(expr, self.batch_size, torch.bool if is_mask(self, expr) else self.dtype, self.device)

    def lift(self, value: Any, where: str) -> Expr:
        """A symbol, a weight or a number as a node; any other tensor is an error."""
        if isinstance(value, Symbol):
            return value.expr
        if isinstance(value, Expr):  # made by another rule
            return value
        if isinstance(value, Tensor):
            if value.layout is not torch.strided:
                raise Refusal(f"{where} is a weight in the layout {value.layout}", "to_dense()")
            if id(value) in self.weights:
                return self.fitted(value, self.weights[id(value)][1])
            raise Refusal(
                f"{where} is a tensor of shape {tuple(value.shape)} that is neither a value of the step nor computed "
                "from weights; its numbers would be baked in",
                "register it as a buffer, pass it as a constant, or write a Python number",
            )
        if isinstance(value, bool | int | float):
            return self.builder.const(value)
        raise Refusal(f"{where} is a {type(value).__name__}", "tensors and numbers")

    def fitted(self, weight: Tensor, expr: Expr) -> Expr:
        """A weight in the dtype of the step; booleans stay what they are."""
        if weight.dtype is self.dtype:
            return expr
        if weight.dtype is torch.bool:
            self.masks.add(expr.node)
            return expr
        if torch.result_type(torch.empty(1, dtype=self.dtype), weight) is not self.dtype:
            raise Refusal(f"a weight in {weight.dtype} beside values in {self.dtype}", "one dtype in the whole step")
        return expr.call(converted, self.dtype, shape=expr.shape)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        leaves = tree_leaves((args, kwargs))
        symbolic = any(isinstance(v, Symbol) for v in leaves)
        if name in PASSED_THROUGH:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        try:
            if self.gradients and not torch.is_grad_enabled() and any(isinstance(v, Tensor) for v in leaves):
                # So does torch.autograd.Function while forward runs: its backward is not what would be derived.
                raise Refusal("gradients are turned off inside of the step", "detach()")
            if _in_place(name) or kwargs.get("out") is not None:
                raise Refusal(
                    f"it changes {'a value' if symbolic else 'a weight'} in place",
                    f"the operation that returns a new value, such as h = h.{name.strip('_')}(...)",
                )
            if symbolic:
                return self.apply(name, func, args, kwargs)
            return self.on_weights(name, func, args, kwargs)
        except Refusal as refusal:
            raise UnderivableStepError(
                f"{self.owner}.step cannot be derived: {refusal.what}",
                received=f"{name} at {_source_line()}",
                instead=refusal.instead or 'recurra.options(executor="reference"), or operations of the vocabulary',
            ) from None

    def apply(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation on symbols, by the table of rules."""
        rule = RULES.get(name) or RULES.get(name.strip("_"))
        if rule is None:
            raise Refusal("the operation is not in the vocabulary")
        if name.strip("_") not in OF_MASKS and any(
            isinstance(v, Symbol) and v.dtype is torch.bool for v in tree_leaves((args, kwargs))
        ):
            raise Refusal("a comparison where numbers are needed", "mask.to(x.dtype)")
        try:
            bound = inspect.signature(rule).bind(self, *args, **kwargs)
        except TypeError as error:
            raise Refusal(f"these arguments are not in the vocabulary ({error})") from None
        made = rule(*bound.args, **bound.kwargs)
        if isinstance(made, Expr):
            return self.symbol(made)
        return tuple(map(self.symbol, made)) if isinstance(made, list) else made

    def on_weights(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Any torch function of weights alone runs, and is written down to run again in each call."""
        read: list[int] = []

        def template(value: Any) -> Any:
            if isinstance(value, Tensor):
                expr = self.weights.get(id(value))
                if expr is None:
                    raise _NotAWeight
                read.append(expr[1].node)
                return Ref(expr[1].node)
            if isinstance(value, list | tuple):
                return (list if isinstance(value, list) else tuple)(map(template, value))  # a list is another index
            return value

        holds_tensor = any(isinstance(v, Tensor) for v in tree_leaves((args, kwargs)))
        try:
            recorded = (
                (func, template(args), tuple((k, template(v)) for k, v in kwargs.items())) if holds_tensor else None
            )
        except _NotAWeight:
            recorded = None  # of no weight: if it ever meets a symbol, lift() will say so
        with _NoDraws():
            result = func(*args, **kwargs)
        if holds_tensor and not any(isinstance(v, Tensor) for v in tree_leaves(result)):
            raise Refusal("the step looks at the value of a tensor, which would be baked in", "a Python number")
        if recorded is not None:
            self.record(recorded, read, result)
        return result

    def record(self, recorded: Any, read: list[int], result: Any) -> None:
        if isinstance(result, Tensor) and not isinstance(result, Symbol):
            node = self.builder.add("call", read, self.named(result, read), recorded)
            self.weights.setdefault(id(result), (result, self.builder.expr(node)))
        elif isinstance(result, tuple | list) and any(isinstance(r, Tensor) for r in result):
            whole = self.builder.add("call", read, (), recorded)
            for k, r in enumerate(result):
                if isinstance(r, Tensor):
                    node = self.builder.add("item", [whole], self.named(r, read), k)
                    self.weights.setdefault(id(r), (r, self.builder.expr(node)))

    def named(self, tensor: Tensor, read: list[int]) -> Shape:
        """The shape of what was made from weights, in their letters: two blocks of a weight of 3H are 2H."""
        known = [d for i in read for d in self.builder.nodes[i].shape]
        parts = lambda size: (p for d in known if (p := d.part(size)).terms)
        return tuple(next(parts(size), Dim(size)) for size in tensor.shape)


class _NotAWeight(Exception):
    pass


class _NoDraws(TorchDispatchMode):
    """Refuses a random draw before it is made: the generator, which other threads may use, is left alone."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise Refusal("a random draw inside of a step", "a mask passed as an input or a constant of the sequence")
        return func(*args, **(kwargs or {}))


def _in_place(name: str) -> bool:
    augmented = name.startswith("__i") and hasattr(Tensor, f"__{name[3:]}")  # __iadd__ of __add__
    return augmented or name in ("__setitem__", "__set__") or (name.endswith("_") and not name.startswith("__"))


def _name(func: Any) -> str:
    name: str = getattr(func, "__name__", repr(func))
    return name if name != "__get__" else getattr(func.__self__, "__name__", name)


def _source_line() -> str:
    """The line of the user's step: the innermost frame outside of torch and of this package's engine room."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_INSIDE):
        frame = frame.f_back
    return "an unknown line" if frame is None else _shown(frame.f_code.co_filename, frame.f_lineno)


def _source_of(error: Exception) -> str:
    """The same of an error that was raised inside of a step."""
    lines = [(t.filename, t.lineno or 0) for t in traceback.extract_tb(error.__traceback__)]
    return next((_shown(*at) for at in reversed(lines) if not at[0].startswith(_INSIDE)), "an unknown line")


def _shown(file: str, line: int) -> str:
    return f"{file}:{line}: {linecache.getline(file, line).strip()}"
