"""Pictures of a diagnosis, as SVG that takes its colours from the page around it."""

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from recurra.diagnose.flow import SMALLEST, VANISHED, Flow
from recurra.diagnose.gates import Gates
from recurra.diagnose.jacobians import Jacobians
from recurra.train.pictures import INK, STYLE, TRAIN, VALID, svg

_FLOOR = 1e-12  # lower norms are drawn there


def flow_picture(flow: Flow) -> str:
    """The norm of a gradient against the lag, on a logarithmic scale: mean, quartiles, the fitted line; the input's."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.4), layout="constrained")
        axes = figure.subplots()
        lags, up = flow.lags, lambda values: np.maximum(values, _FLOOR)
        axes.fill_between(lags, up(flow.low), up(flow.high), color=VALID, alpha=0.2, linewidth=0, label="quartiles")
        axes.plot(lags, up(flow.norms), color=VALID, label="state, mean")
        if len(flow.input_norms) > 1:
            axes.plot(range(len(flow.input_norms)), up(flow.input_norms), color=TRAIN, label="input to output")
        seen = [(k, math.log(norm)) for k, norm in zip(lags, flow.norms, strict=True) if SMALLEST < norm < math.inf]
        if 0 < flow.decay_per_frame < math.inf and seen:
            fitted, heights = np.transpose(seen)
            line = np.exp(heights.mean() + (fitted - fitted.mean()) * math.log(flow.decay_per_frame))
            label = f"{flow.decay_per_frame:.3g} a frame"
            axes.plot(fitted, up(line), color=INK, linewidth=0.8, linestyle=":", label=label)
        axes.axhline(VANISHED, color=INK, linewidth=0.5)
        axes.set(
            yscale="log", xlabel="frames back", ylabel="norm of the gradient", title=f"{flow.name}: {flow.verdict}"
        )
        _plain_numbers(axes.yaxis)
        axes.legend()
        return svg(figure, f"flow-{flow.name}".replace(" ", "-"))


def spectrum_picture(found: Jacobians) -> str:
    """Singular values and radius of the step's Jacobian; and how long units remember."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        values = {"largest": found.largest, "mean": found.mean, "spectral radius": found.radius}
        for row, (values_of, colour) in enumerate(zip(values.values(), (VALID, TRAIN, INK), strict=True)):
            offsets = np.linspace(-0.2, 0.2, len(values_of)) if len(values_of) > 1 else [0.0]
            left.plot(values_of, row + np.asarray(offsets), ".", color=colour, alpha=0.6)
        left.set_yticks(range(len(values)), list(values))
        left.axvline(1, color=INK, linewidth=0.8, linestyle=":")
        left.set(xlabel="singular value", title="Jacobian of one frame", xlim=(0, None))
        for (leaf, times), colour in zip(found.times.items(), (VALID, TRAIN, INK) * len(found.times), strict=False):
            bounded = sorted(min(t, 1e4) for t in times)
            right.plot(np.linspace(0, 1, len(bounded)), np.maximum(bounded, 0.1), color=colour, label=leaf)
        right.set(yscale="log", xlabel="part of the units", ylabel="frames", title="how long units remember")
        right.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _plain_numbers(right.yaxis)
        right.legend()
        return svg(figure, f"spectrum-{found.name}".replace(" ", "-"))


def gates_picture(found: Gates) -> str:
    """How much of each gate stands at an end of its range; the size of states over time."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        _ends(left, found.low, found.high)
        for (leaf, norms), colour in zip(found.norms.items(), (VALID, TRAIN, INK) * len(found.norms), strict=False):
            right.plot(range(1, len(norms) + 1), norms, color=colour, label=leaf)
        right.set(xlabel="frame", ylabel="root mean square", title="size of states", ylim=(0, None))
        right.legend()
        return svg(figure, f"gates-{found.name}".replace(" ", "-"))


def _plain_numbers(axis: mpl.axis.Axis) -> None:
    """Label a logarithmic axis in numbers: :func:`svg` draws no TeX. Within two decades, 2 and 5 have labels too."""

    def minor(value: float, _: float) -> str:
        low, high = axis.get_view_interval()
        return f"{value:g}" if high < 100 * low and f"{value:e}"[0] in "25" else ""

    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(minor)


def _ends(axes: mpl.axes.Axes, low: Mapping[str, float], high: Mapping[str, float]) -> None:
    names: Sequence[str] = list(low)
    places = np.arange(len(names))
    axes.barh(places, [-low[n] for n in names], color=TRAIN, label="lower end")
    axes.barh(places, [high[n] for n in names], color=VALID, label="upper end")
    for place, name in enumerate(names):
        axes.text(0.98, place, f"{low[name] + high[name]:.0%}", ha="right", va="center")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlim=(-1, 1), xlabel="part of the values", title="values at an end of their range")
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):.0%}")
    if names:
        axes.legend(loc="lower left")
    else:
        axes.text(0, 0, "the step has no gates", ha="center")
