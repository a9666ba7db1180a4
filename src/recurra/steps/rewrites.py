"""Named rewrites of a graph: each is one rule, declared exact (the same bits) or not, with what it is for.

A rule looks at a node whose arguments are already rewritten, and returns what to compute in its place, or None.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from recurra.shapes import Dim, extent
from recurra.steps.graph import Builder, Expr, Node, Ref, StepGraph, renumbered
from recurra.steps.stages import Scope, Stage, stages


@dataclass(frozen=True)
class Context:
    """What a rule may ask: the graph that is being made, and facts about the one that was."""

    builder: Builder
    on_state: list[bool]  # of the new graph: whether a node depends on the state
    weight: list[bool]  # of the new graph: whether it is computed from weights alone
    readers: list[int]  # of the new graph: how often the node it stands for was read; 0 for what a rule made between

    def expr(self, node: int) -> Expr:
        """A node to compute with."""
        return self.builder.expr(node)

    def node(self, number: int) -> Node:
        """A node of the new graph."""
        return self.builder.nodes[number]


Rule = Callable[[Context, Node], Expr | None]


@dataclass(frozen=True)
class Rewrite:
    """A rule with its name and what it promises."""

    name: str
    exact: bool
    why: str
    rule: Rule


REWRITES: dict[str, Rewrite] = {}


def rewrite(*, exact: bool, why: str) -> Callable[[Rule], Rule]:
    """Register a rule."""

    def register(rule: Rule) -> Rule:
        REWRITES[rule.__name__] = Rewrite(rule.__name__, exact, why, rule)
        return rule

    return register


def apply(graph: StepGraph, names: Sequence[str]) -> StepGraph:
    """Rewrite a graph by these rules, one after another."""
    for name in names:
        graph = _apply_one(graph, REWRITES[name].rule) if name in REWRITES else WHOLE[name](graph)
    return graph


def _apply_one(graph: StepGraph, rule: Rule) -> StepGraph:
    builder = Builder()
    context = Context(builder, [], [], [])
    number: dict[int, int] = {}
    uses = {i: len(graph.uses[i]) for i, _ in graph}
    for end in (*graph.outputs, *graph.next_states):
        uses[end] += 1
    for i, node in graph:
        moved = renumbered(node, number)
        made = rule(context, moved) if node.args else None
        new = made.node if made is not None else builder.add(moved.op, moved.args, moved.shape, moved.attrs)
        _learn(context)
        number[i] = new
        context.readers[new] = max(context.readers[new], uses[i])
    ends = {
        role: [number[i] for i in getattr(graph, role)]
        for role in ("inputs", "states", "constants", "outputs", "next_states")
    }
    return builder.graph(**ends)


def _learn(context: Context) -> None:
    """Extend the facts to the nodes that were just made."""
    for node in context.builder.nodes[len(context.on_state) :]:
        role = node.attrs[0] if node.op == "leaf" else "weight"
        leaf = not node.args
        context.on_state.append(role == "state" if leaf else any(context.on_state[a] for a in node.args))
        context.weight.append(role == "weight" if leaf else all(context.weight[a] for a in node.args))
        context.readers.append(0)


def _columns(weight: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    return weight[:, start:stop]


def _rows(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(weights))


@rewrite(exact=False, why="sums one long dot product as several shorter ones")
def split_concatenated_input(context: Context, node: Node) -> Expr | None:
    """``linear([a, b], W)  ->  linear(a, W[:, :n]) + linear(b, W[:, n:])``, n the width of a.

    Without it a cell written on ``[x, h]`` hides its input projection from the HOIST stage.
    """
    if node.op != "linear":
        return None
    joined, weight = context.node(node.args[0]), context.expr(node.args[1])
    if joined.op != "cat" or joined.attrs[0] != len(joined.shape) - 1:
        return None
    if len({context.on_state[a] for a in joined.args}) == 1:
        return None  # nothing could be hoisted
    total: Expr | None = None if len(node.args) == 2 else context.expr(node.args[2])
    start = 0
    for part in map(context.expr, joined.args):
        stop = start + part.shape[-1].size
        columns = weight.call(_columns, start, stop, shape=(weight.shape[0], Dim(stop - start, part.shape[-1].terms)))
        product = part.linear(columns)
        total = product if total is None else total + product
        start = stop
    return total


@rewrite(exact=False, why="adds (or multiplies) in another order")
def gather_hoistable(context: Context, node: Node) -> Expr | None:
    """``(s + a) + b  ->  s + (a + b)`` and ``(s a) b  ->  s (a b)`` where only s depends on the state.

    What does not depend on the state then meets outside of the loop.
    """
    if node.op not in ("add", "mul"):
        return None
    for inner, free in (node.args, reversed(node.args)):
        if context.on_state[free] or not context.on_state[inner]:
            continue
        below = context.node(inner)
        if below.op != node.op:
            continue
        for state, other in (below.args, reversed(below.args)):
            if context.on_state[state] and not context.on_state[other]:
                return context.expr(state).pointwise(node.op, _together(context, node.op, other, free))
    return None


def _together(context: Context, op: str, a: int, b: int) -> Expr:
    one, two = context.node(a), context.node(b)
    if one.op == two.op == "const":
        return context.builder.const(one.attrs + two.attrs if op == "add" else one.attrs * two.attrs)
    return context.expr(a).pointwise(op, context.expr(b))


@rewrite(exact=False, why="the product starts its sum from the addend")
def fold_addend(context: Context, node: Node) -> Expr | None:
    """``linear(a, W) + b  ->  linear(a, W, b)``: a bias, or what was hoisted, enters the product that reads it."""
    if node.op != "add":
        return None
    for product, addend in (node.args, reversed(node.args)):
        below, b = context.node(product), context.expr(addend)
        if below.op != "linear" or len(below.args) != 2 or len(below.shape) != 1 or context.readers[product] > 1:
            continue
        if context.on_state[addend] and not context.on_state[product]:
            continue  # the product would follow the addend into the loop
        if b.sizes == extent(below.shape) or (context.weight[addend] and len(b.shape) <= 1):
            if not b.shape:  # a number stays a number: it costs nothing to add
                continue
            return context.expr(below.args[0]).linear(context.expr(below.args[1]), b)
    return None


def merge_products(graph: StepGraph) -> StepGraph:
    """``linear(a, U), linear(a, V)  ->  slices of linear(a, [U; V])``: one product reads its operand once.

    Products of one operand, in one stage, without addends; inexact, since a wider product may sum in another order.
    """
    staged = stages(graph)
    groups: dict[tuple[int, Stage], list[int]] = {}
    for i, node in graph:
        if node.op == "linear" and len(node.args) == 2 and staged.scope[i] is not Scope.WEIGHT:
            groups.setdefault((node.args[0], staged.stage[i]), []).append(i)
    merged = {i: members for members in groups.values() if len(members) > 1 for i in members}
    if not merged:
        return graph
    builder, number = Builder(), dict[int, int]()
    # Weights first: the joint product stands where its first member stood, and needs all of their weights.
    order = sorted(range(len(graph.nodes)), key=lambda i: staged.scope[i] is not Scope.WEIGHT)
    for i in order:
        if i in number:
            continue
        node = graph.nodes[i]
        if i not in merged:
            moved = renumbered(node, number)
            number[i] = builder.add(moved.op, moved.args, moved.shape, moved.attrs)
            continue
        members = merged[i]
        weights = [number[graph.nodes[m].args[1]] for m in members]
        joint = _stacked(builder, weights)
        whole = builder.expr(number[node.args[0]]).linear(joint)
        start = 0
        for m in members:
            stop = start + graph.nodes[m].shape[-1].size
            number[m] = whole.slice(-1, start, stop).node
            start = stop
    ends = {
        role: [number[i] for i in getattr(graph, role)]
        for role in ("inputs", "states", "constants", "outputs", "next_states")
    }
    return builder.graph(**ends)


def _stacked(builder: Builder, weights: list[int]) -> Expr:
    parts = [builder.nodes[w] for w in weights]
    height = parts[0].shape[0]
    for p in parts[1:]:
        height = height + p.shape[0]
    attrs = (_rows, (tuple(map(Ref, weights)),), ())
    return builder.expr(builder.add("call", weights, (height, parts[0].shape[1]), attrs))


WHOLE: dict[str, Callable[[StepGraph], StepGraph]] = {"merge_products": merge_products}

# In this order: products are split before the parts are moved, and folded once all have found their place.
FORWARD = ("split_concatenated_input", "merge_products", "gather_hoistable", "fold_addend")
BACKWARD = ("gather_hoistable", "fold_addend")
