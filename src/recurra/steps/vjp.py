"""The derivative of a step is a step: it runs from the last frame to the first, its state the cotangent of the state.

A table with one row an operation gives the backward graph; it is staged like any other, so that what needs no cotangent
is computed for all frames at once before the loop, what feeds no earlier frame after it. Every weight gradient is one
contraction over all frames.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recurra.shapes import ONE, extent
from recurra.steps.graph import Builder, Expr, Node, StepGraph, cat
from recurra.steps.ops import OPS, Kind
from recurra.steps.rewrites import BACKWARD, apply
from recurra.steps.stages import Scope, Stage, Staged, stages

# One row an operation: (g, y, *args) -> the cotangent of each argument, g being that of the result y. None: no gradient
# runs there. A factor that needs no cotangent is put in brackets, so that it can be hoisted.
Row = Callable[..., Sequence[Expr | None]]


def _ties(g: Expr, a: Expr, b: Expr, wins: str) -> Expr:
    """Torch halves the gradient between equal operands."""
    return g * a.pointwise("eq", b).pointwise("where", 0.5, a.pointwise(wins, b).pointwise("where", 1.0, 0.0))


def _where(g: Expr, y: Expr, c: Expr, a: Expr, b: Expr) -> tuple[None, Expr, Expr]:
    return None, c.pointwise("where", g, 0.0), c.pointwise("where", 0.0, g)


def _amax(g: Expr, y: Expr, a: Expr) -> tuple[Expr]:
    winner = a.pointwise("eq", y).pointwise("where", 1.0, 0.0)
    axes = tuple(k - len(a.shape) for k, (d, e) in enumerate(zip(a.shape, y.shape, strict=True)) if d.size != e.size)
    return (winner * (g / winner.reduce("sum", axes)),)  # torch shares the gradient among equal maxima


def _mean(g: Expr, y: Expr, a: Expr) -> tuple[Expr]:
    count = 1
    for d, e in zip(a.sizes, y.sizes, strict=True):
        count *= d // e
    return ((g * (1.0 / count)).expand(a.shape),)


_NO_GRADIENT: Row = lambda g, y, *args: (None,) * len(args)

VJP: dict[str, Row] = {
    "add": lambda g, y, a, b: (g, g),
    "sub": lambda g, y, a, b: (g, -g),
    "mul": lambda g, y, a, b: (g * b, g * a),
    "div": lambda g, y, a, b: (g / b, g * (-(y / b))),
    "neg": lambda g, y, a: (-g,),
    "sigmoid": lambda g, y, a: (g * ((1.0 - y) * y),),
    "tanh": lambda g, y, a: (g * (1.0 - y * y),),
    "relu": lambda g, y, a: (y.pointwise("gt", 0.0).pointwise("where", g, 0.0),),
    "exp": lambda g, y, a: (g * y,),
    "expm1": lambda g, y, a: (g * (y + 1.0),),
    "log": lambda g, y, a: (g / a,),
    "log1p": lambda g, y, a: (g / (a + 1.0),),
    "sqrt": lambda g, y, a: (g / (2.0 * y),),
    "erf": lambda g, y, a: (g * (1.1283791670955126 * (-(a * a)).pointwise("exp")),),  # 2 / √π
    "abs": lambda g, y, a: (g * a.pointwise("sign"),),
    "sign": _NO_GRADIENT,
    "maximum": lambda g, y, a, b: (_ties(g, a, b, "gt"), _ties(g, b, a, "gt")),
    "minimum": lambda g, y, a, b: (_ties(g, a, b, "lt"), _ties(g, b, a, "lt")),
    **dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne", "detach"), _NO_GRADIENT),
    "where": _where,
    "sum": lambda g, y, a: (g.expand(a.shape),),
    "mean": _mean,
    "amax": _amax,
    "reshape": lambda g, y, a: (g.reshape(a.shape),),
    "expand": lambda g, y, a: (g,),  # summed back by _fit
}


@dataclass(frozen=True)
class WeightGrad:
    """A contribution to the gradient of a weight: what to contract over all frames.

    ``linear``: ``Σ g ⊗ a``; ``block_linear``: the same head by head; ``sum``: ``Σ g`` over frames and broadcast axes.
    """

    weight: int  # a node of the forward graph
    contraction: str
    cotangent: int  # which output of the backward graph
    operand: int | None = None


@dataclass(frozen=True)
class Backward:
    """The backward step, and how its ends meet the forward one's.

    The inputs of `staged.graph` are the cotangents of the outputs and then the saved values that a frame has; its
    constants are the saved values that a sequence has; its weights are leaves named by the forward node.
    """

    staged: Staged
    saved: tuple[int, ...]  # forward nodes kept frame by frame, in the order of the inputs behind the cotangents
    saved_once: tuple[int, ...]  # forward nodes kept sequence by sequence
    inputs: dict[int, int]  # which forward input has its cotangent in which output
    constants: dict[int, int]
    weights: tuple[WeightGrad, ...]


def backward(
    forward: Staged, *, inputs: frozenset[int], constants: frozenset[int], weights: frozenset[int]
) -> Backward:
    """Derive the backward step.

    Args:
        forward: the step.
        inputs, constants: which of the graph's inputs and constants (by position) need a gradient.
        weights: which weight nodes need one.
    """
    wanted = (inputs, constants, weights)
    naive = _derive(forward, frozenset(), *wanted)
    return _derive(forward, _recomputed(forward, naive.saved), *wanted)


def _recomputed(forward: Staged, saved: Sequence[int]) -> frozenset[int]:
    """Values cheaper to compute again, from others that are kept anyhow, than to keep."""
    kept, again = set(saved), set[int]()
    for i in sorted(saved):
        node = forward.graph.nodes[i]
        if OPS[node.op].cheap and all(forward.scope[a] is Scope.WEIGHT or a in kept for a in node.args):
            again.add(i)
    return frozenset(again)


def _derive(
    forward: Staged, again: frozenset[int], inputs: frozenset[int], constants: frozenset[int], weights: frozenset[int]
) -> Backward:
    graph, builder = forward.graph, Builder()
    cotangents: dict[int, list[Expr]] = {}
    slices: dict[int, list[tuple[int, int, int, Expr]]] = {}
    given = [builder.leaf("input", ("cotangent", k), graph.nodes[i].shape) for k, i in enumerate(graph.outputs)]
    states = [builder.leaf("state", graph.nodes[s].attrs[1], graph.nodes[s].shape) for s in graph.states]
    for i, g in (*zip(graph.outputs, given, strict=True), *zip(graph.next_states, states, strict=True)):
        cotangents.setdefault(i, []).append(g)

    def value(i: int) -> Expr:
        """A value of the forward step, in the backward one."""
        node = graph.nodes[i]
        if node.op == "const":
            return builder.const(node.attrs)
        if forward.scope[i] is Scope.WEIGHT:
            return builder.leaf("weight", i, node.shape)
        if i in again:
            return builder.expr(builder.add(node.op, [value(a).node for a in node.args], node.shape, node.attrs))
        return builder.leaf("constant" if forward.scope[i] is Scope.SEQUENCE else "input", i, node.shape)

    needs = _needs(forward, inputs, constants, weights)
    found: list[tuple[int, str, Expr, Expr | None]] = []
    ends: dict[int, Expr] = {}
    for i in reversed(range(len(graph.nodes))):
        node = graph.nodes[i]
        if i in slices:
            cotangents.setdefault(i, []).extend(_assemble(builder, node, slices.pop(i)))
        if i not in cotangents or not needs[i]:
            continue
        g = _sum(cotangents[i])
        if forward.scope[i] is Scope.WEIGHT:  # an output, or a next state, of weights alone
            found.append((i, "sum", g, None))
            continue
        if node.op == "leaf":
            ends[i] = g
            continue
        if node.op == "slice":
            axis, start, stop = node.attrs
            slices.setdefault(node.args[0], []).append((axis, start, stop, g))
            continue
        for a, contribution, operand in _arguments(node, g, value, i):
            if contribution is None or not needs[a]:
                continue
            if forward.scope[a] is Scope.WEIGHT:
                found.append((a, node.op if operand is not None else "sum", contribution, operand))
            else:
                cotangents.setdefault(a, []).append(_fit(contribution, graph.nodes[a]))

    zero = lambda i: builder.full(0.0, graph.nodes[i].shape)
    outputs: list[int] = []

    def output(e: Expr) -> int:
        outputs.append(e.node)
        return len(outputs) - 1

    input_of = {k: output(ends.get(graph.inputs[k], zero(graph.inputs[k]))) for k in sorted(inputs)}
    constant_of = {k: output(ends.get(graph.constants[k], zero(graph.constants[k]))) for k in sorted(constants)}
    grads = tuple(
        WeightGrad(a, how, output(g), None if operand is None else output(operand)) for a, how, g, operand in found
    )
    leaves = list(enumerate(builder.nodes))
    frames = [i for i, n in leaves if n.op == "leaf" and n.attrs[0] == "input" and not isinstance(n.attrs[1], tuple)]
    once = [i for i, n in leaves if n.op == "leaf" and n.attrs[0] == "constant"]
    raw = builder.graph(
        inputs=[*(g.node for g in given), *frames],
        states=[s.node for s in states],
        constants=once,
        outputs=outputs,
        next_states=[ends.get(s, zero(s)).node for s in graph.states],
    )
    staged = stages(apply(_pruned(raw), BACKWARD))
    name = lambda i: staged.graph.nodes[i].attrs[1]
    return Backward(
        staged,
        tuple(name(i) for i in staged.graph.inputs[len(given) :]),
        tuple(map(name, staged.graph.constants)),
        input_of,
        constant_of,
        grads,
    )


def _pruned(graph: StepGraph) -> StepGraph:
    """Without the saved values that nothing reads: they need not be kept."""
    builder, number = Builder(), dict[int, int]()
    read = {a for _, node in graph for a in node.args} | {*graph.outputs, *graph.next_states}
    for i, node in graph:
        number[i] = builder.add(node.op, [number[a] for a in node.args], node.shape, node.attrs)
    kept = lambda ids: [number[i] for i in ids if i in read or isinstance(graph.nodes[i].attrs[1], tuple)]
    return builder.graph(
        inputs=kept(graph.inputs),
        states=[number[i] for i in graph.states],
        constants=kept(graph.constants),
        outputs=[number[i] for i in graph.outputs],
        next_states=[number[i] for i in graph.next_states],
    )


def _needs(forward: Staged, inputs: frozenset[int], constants: frozenset[int], weights: frozenset[int]) -> list[bool]:
    """Which nodes lie between something that needs a gradient and the end of the step."""
    graph = forward.graph
    roots = {graph.inputs[k] for k in inputs} | {graph.constants[k] for k in constants} | weights | set(graph.states)
    needs: list[bool] = []
    for i, node in graph:
        inner = forward.scope[i] is not Scope.WEIGHT and any(needs[a] for a in node.args)
        needs.append(i in roots or inner)
    return needs


def _arguments(
    node: Node, g: Expr, value: Callable[[int], Expr], result: int
) -> list[tuple[int, Expr | None, Expr | None]]:
    """(argument, its cotangent, the operand where it is a product's weight)."""
    args = node.args
    if node.op == "linear":
        weight = value(args[1])
        rows: list[tuple[int, Expr | None, Expr | None]] = [
            (args[0], g.linear(weight.transposed()), None),
            (args[1], g, value(args[0])),
        ]
        return rows + [(a, g, None) for a in args[2:]]
    if node.op == "block_linear":
        weight = value(args[1])
        return [(args[0], g.block_linear(weight.transposed()), None), (args[1], g, value(args[0]))]
    if node.op == "standardize":
        whole = g.standardize_grad(value(result), value(args[1]), node.attrs[0])
        return [(args[0], whole, None)]  # by way of the scale too
    if node.op == "cat":
        axis, start = node.attrs[0] - node.attrs[1], 0
        parts: list[tuple[int, Expr | None, Expr | None]] = []
        for part in args:
            width = value(part).shape[axis].size
            parts.append((part, g.slice(axis, start, start + width), None))
            start += width
        return parts
    cotangents = VJP[node.op](g, value(result), *map(value, args))
    return [(a, c, None) for a, c in zip(args, cotangents, strict=True)]


def _sum(parts: Sequence[Expr]) -> Expr:
    total = parts[0]
    for p in parts[1:]:
        total = total + p
    return total


def _fit(g: Expr, node: Node) -> Expr:
    """Undo broadcasting: sum over the axes along which the argument was repeated, repeat where g is narrower."""
    wide = tuple(k - len(g.shape) for k, d in enumerate(g.shape) if d.size != 1 and node.shape[k].size == 1)
    if wide:
        g = g.reduce("sum", wide)
    return g.expand(node.shape) if g.sizes != extent(node.shape) else g


def _assemble(builder: Builder, node: Node, parts: list[tuple[int, int, int, Expr]]) -> list[Expr]:
    """Cotangents of slices, side by side where they do not overlap, with zeros in the gaps."""
    whole: list[Expr] = []
    todo = sorted(parts, key=lambda p: p[:3])
    while todo:
        axis, at, row, rest = todo[0][0], 0, [], []
        width = node.shape[axis].size
        for part in todo:
            if part[0] != axis or part[1] < at:
                rest.append(part)
                continue
            _, start, stop, g = part
            if start > at:
                row.append(_zeros(builder, node, axis, at, start))
            row.append(_fit_slice(g, node, axis, stop - start))
            at = stop
        if at < width:
            row.append(_zeros(builder, node, axis, at, width))
        whole.append(cat(row, axis))
        assert len(rest) < len(todo), "a slice begins before its axis"
        todo = rest
    return whole


def _fit_slice(g: Expr, node: Node, axis: int, width: int) -> Expr:
    axis %= len(node.shape)
    shape = (*node.shape[:axis], node.shape[axis].part(width), *node.shape[axis + 1 :])
    return g.expand(shape) if g.sizes != extent(shape) else g


def _zeros(builder: Builder, node: Node, axis: int, start: int, stop: int) -> Expr:
    axis %= len(node.shape)
    return builder.full(0.0, (*node.shape[:axis], node.shape[axis].part(stop - start), *node.shape[axis + 1 :]))


def save_list(forward: Staged) -> tuple[int, ...]:
    """The values a training scan keeps frame by frame when every input and weight needs a gradient."""
    graph = forward.graph
    every = frozenset(range(len(graph.inputs)))
    weights = frozenset(i for i, n in graph if forward.stage[i] is Stage.WEIGHT and n.op != "const")
    return backward(forward, inputs=every, constants=frozenset(), weights=weights).saved


assert set(OPS) == {
    *VJP,
    # In _arguments and _assemble: they need their attributes.
    *("linear", "block_linear", "cat", "slice", "standardize"),
    "inverse_deviation",  # standardize has its gradient
    "standardize_grad",  # stands in backward steps alone
    *(name for name, op in OPS.items() if op.kind in (Kind.LEAF, Kind.WEIGHT)),
}, "each operation has a derivative"
__all__ = ["ONE", "VJP", "Backward", "WeightGrad", "backward", "save_list"]
