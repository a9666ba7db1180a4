"""Draw ``docs/idea.svg``: ``python docs/idea.py``. Stages, counts and executors are asked of the engine, not typed."""

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor
from torch.nn.functional import linear

import recurra
from recurra.engine.derive import derive
from recurra.engine.plan import EXECUTORS
from recurra.steps.stages import Stage

INK, PALE, LINE = "#1f2430", "#6b7280", "#9ca3af"
COLOURS = {  # fill, edge
    Stage.WEIGHT: ("#ece5f6", "#7c5cb0"),
    Stage.HOIST: ("#dceaf8", "#2f6fb3"),
    Stage.LOOP: ("#fde5d0", "#d2691e"),
    Stage.SINK: ("#dcf0e2", "#2e8b57"),
}
WHEN = {
    Stage.WEIGHT: "weights alone: once a call",
    Stage.HOIST: "needs no state: all frames at once",
    Stage.LOOP: "a next state needs it: frame by frame",
    Stage.SINK: "feeds no next state: all frames at once",
}


class LeakyState(NamedTuple):
    h: Tensor  # (B, H)


class Leaky(recurra.Cell[LeakyState]):
    """A cell with something in each stage."""

    State = LeakyState

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.W, self.b, self.U = self.weight("H D"), self.weight("H"), self.weight("H H")
        self.V, self.rate = self.weight("H H"), self.weight("H")

    def step(self, x: Tensor, state: LeakyState) -> tuple[Tensor, LeakyState]:
        keep = self.rate.sigmoid()
        seen = linear(x, self.W, self.b)
        new = (seen + linear(state.h, self.U)).tanh()
        h = keep * state.h + (1 - keep) * new
        return linear(h, self.V), LeakyState(h)


CODE = (  # a line, and the stage it falls into
    ("def step(self, x, state):", None),
    ("    keep = self.rate.sigmoid()", Stage.WEIGHT),
    ("    seen = linear(x, self.W, self.b)", Stage.HOIST),
    ("    new = (seen + linear(state.h, self.U)).tanh()", Stage.LOOP),
    ("    h = keep * state.h + (1 - keep) * new", Stage.LOOP),
    ("    return linear(h, self.V), LeakyState(h)", Stage.SINK),
)
# Where each value of the graph stands: what it computes, as the graph names it, -> (label, x, y).
PLACES = {
    "x": ("x", 0.4, 4.0),
    "linear W": ("W x + b", 1.7, 4.0),
    "linear U": ("U h + …", 3.35, 4.0),
    "tanh": ("tanh", 4.75, 4.0),
    "mul new": ("×", 5.95, 4.0),
    "rate": ("rate", 2.65, 2.6),
    "call sigmoid": ("σ", 3.8, 2.6),
    "call __rsub__": ("1 − …", 4.95, 2.6),
    "h": ("h", 0.4, 1.2),
    "mul h": ("×", 5.1, 1.2),
    "add": ("+", 6.75, 2.6),
    "linear V": ("y = V h", 8.1, 2.6),
}


def box(ax: Axes, x: float, y: float, w: float, h: float, fill: str, edge: str, **style: object) -> FancyBboxPatch:
    """A rounded box around a centre."""
    shape = FancyBboxPatch(
        (x - w / 2, y - h / 2), w, h, boxstyle="round,pad=0,rounding_size=0.12", fc=fill, ec=edge, lw=1.1, **style
    )
    ax.add_patch(shape)
    return shape


def arrow(ax: Axes, a: object, b: object, *, bend: float = 0.0, colour: str = LINE, width: float = 1.0) -> None:
    """From one box (or point) to another, cut where the boxes begin."""
    ends = {"patchA": a, "patchB": b} if isinstance(a, FancyBboxPatch) else {}
    points = [(p.get_x() + p.get_width() / 2, p.get_y() + p.get_height() / 2) if ends else p for p in (a, b)]
    ax.add_patch(
        FancyArrowPatch(
            *points, arrowstyle="-|>", mutation_scale=9, lw=width, color=colour, shrinkA=1.5, shrinkB=1.5,
            connectionstyle=f"arc3,rad={bend}", **ends,
        )
    )  # fmt: skip


def title(ax: Axes, number: int, text: str) -> None:
    """The heading of a panel."""
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center", "weight": "bold"}
    dot = {"boxstyle": "circle,pad=0.25", "fc": INK, "ec": "none"}
    ax.annotate(str(number), (0, 1), (9, 10), fontsize=12, color="white", ha="center", bbox=dot, **place)
    ax.annotate(text, (0, 1), (26, 10), fontsize=13, color=INK, **place)


def code(ax: Axes) -> None:
    """The step, each line in the colour of its stage."""
    title(ax, 1, "You write one step")
    for k, (line, stage) in enumerate(CODE):
        y = 5.05 - 0.8 * k
        if stage:
            fill, edge = COLOURS[stage]
            ax.fill_between([0.62, 9.47], y - 0.3, y + 0.3, color=fill, lw=0)
            ax.plot([0.62, 0.62], [y - 0.3, y + 0.3], color=edge, lw=2.4, solid_capstyle="butt")
        ax.text(0.05, y, line, family="monospace", fontsize=10.3, va="center", color=INK)
    ax.set(xlim=(0, 9.6), ylim=(0.5, 5.6))


def names_of(staged: object) -> dict[int, str]:
    """What to call each value of the traced graph: a leaf by its name, the others by what tells them apart."""
    nodes = staged.graph.nodes
    named: dict[int, str] = {}
    for i, node in staged.graph:
        read = [named.get(a, "") for a in node.args]
        if node.op == "leaf":
            named[i] = node.attrs[1]
        elif node.op == "linear":
            named[i] = f"linear {nodes[node.args[1]].attrs[1]}"
        elif node.op == "mul":
            named[i] = "mul h" if "h" in read else "mul new"
        elif node.op == "call":  # of weights alone: any torch function
            named[i] = f"call {node.attrs[0].__name__}"
        else:
            named[i] = node.op
    return named


def graph(ax: Axes, staged: object) -> None:
    """The traced step; the weights of products stand inside of them."""
    title(ax, 2, "Recurra traces it, and sorts it by dependence")
    named, boxes = names_of(staged), {}
    shown = {i for i, name in named.items() if name in PLACES}
    folded = {"W", "U", "V", "b"}
    assert {named[i] for i in shown} == {*PLACES}, "the engine derives another graph: place its values anew"
    assert {name for i, name in named.items() if i not in shown} == folded
    for i in sorted(shown):
        label, x, y = PLACES[named[i]]
        leaf = staged.graph.nodes[i].op == "leaf"
        fill, edge = ("white", LINE) if leaf else COLOURS[staged.stage[i]]
        width = 0.52 if leaf else max(0.62, 0.135 * len(label) + 0.3)
        boxes[i] = box(ax, x, y, width, 0.66, fill, edge, ls="--" if leaf else "-", zorder=3)
        ax.text(x, y, label.strip() or label, ha="center", va="center", fontsize=10.2, color=INK, zorder=4)
    for i in sorted(shown):
        for a in staged.graph.nodes[i].args:
            if a in boxes:
                arrow(ax, boxes[a], boxes[i])
    (after,) = staged.graph.next_states
    edge = COLOURS[Stage.LOOP][1]
    x, y = PLACES[named[after]][1:]
    ax.plot([x, x, 0.4], [y - 0.33, 0.42, 0.42], color=edge, lw=1.5, solid_joinstyle="round")
    arrow(ax, (0.4, 0.42), (0.4, 0.9), colour=edge, width=1.5)
    ax.text(3.6, 0.5, "to the next frame", color=edge, fontsize=9.2, ha="center", va="bottom")
    ax.set(xlim=(0, 8.75), ylim=(0.2, 4.6))


def schedule(ax: Axes, counts: dict[str, dict[str, int]]) -> None:
    """When each stage runs."""
    title(ax, 3, "Each stage runs when it can, and backwards by a table of rules")
    frames, left, width = 12, 4.55, 0.62
    for k, stage in enumerate(Stage):
        fill, edge = COLOURS[stage]
        y = 3.62 - 1.0 * k
        ax.text(0.05, y + 0.14, stage.name, fontsize=10.5, weight="bold", color=edge, va="center")
        ax.text(0.05, y - 0.2, WHEN[stage], fontsize=9, color=PALE, va="center")
        end = left + frames * width
        gemms = counts[stage.value].get("gemms", 0)
        said = f"{gemms} GEMM over T × B rows" if gemms else "σ(rate), 1 − σ(rate)"
        if stage is Stage.LOOP:
            cells = [box(ax, left + (t + 0.5) * width, y, width - 0.16, 0.6, fill, edge) for t in range(frames)]
            for a, b in zip(cells, cells[1:], strict=False):
                arrow(ax, a, b, colour=edge)
            ax.text(end + 0.14, y, f"{gemms} GEMM\na frame", fontsize=9, color=PALE, va="center", linespacing=1.15)
        elif stage is Stage.WEIGHT:
            box(ax, left + 1.32, y, 2.48, 0.6, fill, edge)
            ax.text(left + 1.32, y, said, fontsize=9.2, ha="center", va="center", color=INK)
        else:
            box(ax, (left + end) / 2, y, end - left - 0.16, 0.6, fill, edge)
            ax.text((left + end) / 2, y, said, fontsize=9.2, ha="center", va="center", color=INK)
    arrow(ax, (left, -0.08), (left + frames * width, -0.08))
    ax.text(left + frames * width / 2, -0.16, "time: T frames", fontsize=9, color=PALE, ha="center", va="top")
    ax.set(xlim=(0, 13.3), ylim=(-0.5, 4.1))


def executors(ax: Axes) -> None:
    """The ways to run them."""
    title(ax, 4, "A plan picks who runs them")
    for k, executor in enumerate(EXECUTORS.values()):
        y = 3.62 - 1.0 * k
        last = executor.name == "reference"
        box(ax, 3.05, y, 6.0, 0.74, "#f3f4f6" if last else "white", INK)
        ax.text(0.3, y + 0.14, executor.name, fontsize=10.5, weight="bold", color=INK, va="center", family="monospace")
        ax.text(0.3, y - 0.19, executor.what, fontsize=9, color=PALE, va="center")
    said = "The plain loop is the definition: one suite of tests\nholds the others to its numbers, in rounding steps."
    below = 3.62 - 1.0 * len(EXECUTORS)
    ax.text(0.05, below, said, fontsize=9.2, color=INK, va="center", linespacing=1.6)
    ax.set(xlim=(0, 6.1), ylim=(-0.5, 4.1))


def draw() -> Figure:
    """The whole picture."""
    cell = Leaky(8, 8)
    staged, counts = derive(cell).forward.staged, recurra.explain(cell).stages
    figure = Figure(figsize=(12.6, 7.2), facecolor="white")
    code(figure.add_axes((0.02, 0.555, 0.385, 0.375)))
    graph(figure.add_axes((0.44, 0.555, 0.545, 0.375)), staged)
    schedule(figure.add_axes((0.02, 0.02, 0.635, 0.43)), counts)
    executors(figure.add_axes((0.69, 0.02, 0.295, 0.43)))
    for ax in figure.axes:
        ax.axis("off")
    return figure


def main() -> None:
    """Write the picture beside this file; the same picture gives the same bytes."""
    with mpl.rc_context({"svg.hashsalt": "recurra", "svg.fonttype": "path", "font.family": "DejaVu Sans"}):
        draw().savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
