"""A diagnosis as one HTML page that needs no other file and no network."""

import math
from statistics import median
from typing import TYPE_CHECKING

from recurra.diagnose.pictures import flow_picture, gates_picture, spectrum_picture
from recurra.train.report import Section, page, table

if TYPE_CHECKING:
    from recurra.diagnose.diagnosis import Diagnosis

HOW_TO_READ = (
    "From frames of the data a random direction of the state is sent back through time; drawn is how long it still is "
    "so many frames earlier. A straight line down is a gradient that shrinks by the same factor in each frame; below "
    "the thin line nothing can be learnt from so far back. The blue curve is what an input still does to the output."
)
SPECTRUM = (
    "Singular values of the derivative of one state for the one before: above 1 a direction grows in that frame, below "
    "it shrinks. On the right the time constants of the units, sorted; in gated cells they are the forget gate's."
)
GATES = (
    "A gate at an end of its range passes next to no gradient. States that grow with time will not be understood on "
    "sequences longer than those of training."
)


def page_of(diagnosis: "Diagnosis") -> str:
    """The whole page."""
    flows = [layer.flow for layer in diagnosis.layers]
    tiles = {flow.name: flow.verdict for flow in flows}
    header = ["layer", "verdict", "a frame", "half-life, frames", "left over all frames", "input felt for"]
    rows = [
        [f.name, f.verdict, f"{f.decay_per_frame:.4g}", _frames(f.half_life), f"{f.reach:.2g}", f"{f.horizon} frames"]
        for f in flows
    ]
    sections = [Section("In short", table(header, rows))]
    if diagnosis.advice:
        told = [[a.layer, a.symptom, a.evidence, a.remedy] for a in diagnosis.advice]
        sections.append(Section("The letter", table(["layer", "symptom", "evidence", "what to do"], told)))
    else:
        sections.append(Section("The letter", "<p>Nothing is wrong that can be seen from here.</p>"))
    for layer in diagnosis.layers:
        name = layer.flow.name
        sections += [
            Section(f"Gradients through time: {name}", flow_picture(layer.flow), HOW_TO_READ),
            Section(f"One frame, and memory: {name}", spectrum_picture(layer.jacobians), SPECTRUM),
            Section(f"Gates and states: {name}", gates_picture(layer.gates), GATES),
        ]
    lags = max(len(f.lags) for f in flows)
    points = int(median(layer.jacobians.points for layer in diagnosis.layers))
    about = f"gradients over up to {lags} frames; Jacobians at {points} frames of the data"
    return page("Diagnosis", about, tiles, sections)


def _frames(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "does not shrink"
