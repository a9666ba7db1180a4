"""What the engine derives from a cell, in a form to read."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recurra.cells import Cell
from recurra.engine.derive import Derived, derive
from recurra.engine.plan import Plan, plan_for
from recurra.errors import CellDefinitionError, UnderivableStepError
from recurra.shapes import numel, show
from recurra.steps.ops import Kind
from recurra.steps.stages import Linearity, Scope, Stage, Staged
from recurra.steps.vjp import save_list

_LINEAR = {
    Linearity.DIAGONAL: "yes, unit by unit: it can run in parallel over time",
    Linearity.DENSE: "yes, but units mix: a parallel scan would need matrices",
    Linearity.NO: "no",
}


@dataclass(frozen=True)
class Explanation:
    """The stages of one cell, and the plan of a scan.

    Attributes:
        cell: its class. sizes: of its letters. T, B: frames and sequences of the scan.
        stages: for each stage, counts of ``gemms``, ``pointwise``, ``reductions`` and (WEIGHT) ``calls``.
        segments: for each segment of the loop, what it is made of.
        gemm_depth: how many products wait for one another in a frame.
        saved: numbers kept a frame and sequence for the backward pass, and as a multiple of H.
        linear: whether the recurrence is linear in its state.
        underivable: why nothing could be derived, or "".
        plan: which executor runs it, and why not the others.
        graph: the step, node by node.
    """

    cell: str
    sizes: dict[str, int]
    T: int
    B: int
    stages: dict[str, dict[str, int]]
    segments: tuple[str, ...]
    gemm_depth: int
    saved: int
    linear: str
    underivable: str
    plan: Plan
    graph: str

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        sizes = ", ".join(f"{k} = {v}" for k, v in self.sizes.items())
        rows = [f"{self.cell}  ({sizes}; T = {self.T}, B = {self.B})"]
        if self.underivable:
            rows += [f"stages  none: {self.underivable}"]
        else:
            s = self.stages
            loops = (
                f" per frame    depth {self.gemm_depth}, {len(self.segments)} segment{'s' * (len(self.segments) != 1)}"
            )
            rows += [
                f"weight  {_counted(s['weight'])} once a call",
                f"hoist   {_counted(s['hoist'])} once for all frames",
                f"loop    {_counted(s['loop'])}{loops}",
                *(f"        {k}: {text}" for k, text in enumerate(self.segments, 1)),
                f"sink    {_counted(s['sink'])} once for all frames",
                f"saved   {round(self.saved / self.sizes['H'], 1):g} H per frame for the backward pass",
                f"linear  {self.linear}",
            ]
        return "\n".join([*rows, str(self.plan)])


def _counted(counts: dict[str, int]) -> str:
    names = {"gemms": "GEMM", "pointwise": "pointwise", "reductions": "reduction", "calls": "call"}
    shown = [
        f"{n} {names[k]}{'s' if n != 1 and k != 'pointwise' else ''}" for k, n in counts.items() if n and k in names
    ]
    return " + ".join(shown) or "-"


def _counts(staged: Staged, stage: Stage) -> dict[str, int]:
    if stage is Stage.WEIGHT:
        return {"calls": sum(staged.graph.nodes[i].op == "call" for i in staged.nodes(stage))}
    return {
        "gemms": staged.count(stage, Kind.CONTRACTION),
        "reductions": staged.count(stage, Kind.REDUCTION),
        "pointwise": staged.count(stage, Kind.POINTWISE),
    }


def _segment(staged: Staged, nodes: Iterable[int]) -> str:
    """The products and reductions of a segment by their shapes, and how much pointwise work stands between."""
    graph, parts, pointwise = staged.graph, [], 0
    for i in nodes:
        node = graph.nodes[i]
        if node.kind is Kind.CONTRACTION:
            parts.append(f"GEMM {show(graph.nodes[node.args[1]].shape)}")
        elif node.kind is Kind.REDUCTION:
            parts.append(f"{node.op} {show(graph.nodes[node.args[0]].shape)}")
        pointwise += node.kind is Kind.POINTWISE
    return ", ".join([*parts, *([f"{pointwise} pointwise"] if pointwise else [])]) or "layout alone"


def _cells_of(module: nn.Module) -> list[Cell[Any]]:
    """A cell itself, or those of a layer that binds them to its own parameters."""
    if isinstance(module, Cell):
        return [module]
    cells = getattr(module, "cells", None) if isinstance(module, nn.RNNBase) else None
    return list(cells()) if callable(cells) else []


def explain(
    cell: Cell[Any] | nn.Module,
    *,
    T: int = 100,
    B: int = 16,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
) -> Explanation:
    """What the engine derives from a cell, and how a scan of T frames and B sequences would run.

    Args:
        cell: a cell, or a module with some; of several, the first (``[explain(c) for c in net.cells()]`` for all).
        T, B: the size of the scan.
        lengths, reset: as given to the scan, where there are some: they may change the plan.

    Raises:
        CellDefinitionError: the module holds no cell.

    Example:
        >>> import recurra
        >>> print(explain(recurra.LSTMCell(50, 100), T=500, B=64))
        LSTMCell  (D = 50, H = 100; T = 500, B = 64)
        weight  - once a call
        hoist   1 GEMM once for all frames
        loop    1 GEMM + 9 pointwise per frame    depth 1, 1 segment
                1: GEMM (4H, H), 9 pointwise
        sink    - once for all frames
        saved   7 H per frame for the backward pass
        linear  no
        plan    native, because it is the native machine, forward and backward, the fastest here that can
                not torch: slower: the kernels behind torch.nn
                not associative: the recurrence is not linear in its state, unit by unit
                not staged: slower: the derived stages in torch operations
                not reference: slower: the plain loop over cell.step
    """
    found = next((c for m in cell.modules() for c in _cells_of(m)), None)
    if found is None:
        raise CellDefinitionError("there is no recurra.Cell in this module", received=type(cell).__name__)
    cell = found
    like = next(cell.parameters(), torch.empty(()))
    zero = like.new_zeros(())  # seen from each place of an input of any size
    made = [zero.expand(T, B, *(d.size for d in shape)) for shape in cell.input_shapes.values()]
    fixed = [like.new_ones(B, *(d.size for d in shape)) for shape in cell.constant_shapes.values()]
    x = made[0] if cell.Input is None else cell.Input(*made)
    constants = cell.Constants(*fixed) if cell.Constants else None
    plan = plan_for(cell, x, constants=constants, lengths=lengths, reset=reset)
    facts: dict[str, Any] = {"cell": type(cell).__name__, "sizes": dict(cell.sizes), "T": T, "B": B, "plan": plan}
    try:
        derived: Derived = derive(cell)
    except UnderivableStepError as refusal:
        nothing: dict[str, Any] = {
            "stages": {},
            "segments": (),
            "gemm_depth": 0,
            "saved": 0,
            "linear": "unknown",
            "graph": "",
        }
        return Explanation(**facts, **nothing, underivable="; ".join(str(refusal).splitlines()[:2]))
    staged = derived.forward.staged
    saved = [i for i in save_list(staged) if staged.scope[i] is Scope.FRAME]
    return Explanation(
        **facts,
        stages={stage.value: _counts(staged, stage) for stage in Stage},
        segments=tuple(_segment(staged, nodes) for nodes in staged.segments),
        gemm_depth=staged.gemm_depth,
        saved=sum(numel(staged.graph.nodes[i].shape) for i in saved if i not in staged.graph.inputs),
        linear=_LINEAR[staged.linearity],
        underivable="",
        graph=str(staged.graph),
    )
