"""The doctor's letter: what was measured, what it means, and what to change; each advice stands on a symptom."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, median

from recurra.diagnose.flow import Flow
from recurra.diagnose.gates import Gates
from recurra.diagnose.jacobians import Jacobians


@dataclass(frozen=True)
class LayerDiagnosis:
    """What was measured of one layer and direction, and whether its cell has gates that set how long it remembers."""

    gated: bool
    flow: Flow
    jacobians: Jacobians
    gates: Gates


@dataclass(frozen=True)
class Advice:
    """A symptom, its evidence in numbers, and what to do."""

    layer: str
    symptom: str
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.symptom} ({self.evidence}). {self.remedy}"


def _vanishing_plain(f: LayerDiagnosis) -> str:
    if f.flow.verdict != "vanishing" or f.gated:
        return ""
    return (
        f"of a gradient {f.flow.decay_per_frame:.3g} is left after one frame and {f.flow.reach:.1g} "
        f"after {len(f.flow.lags)}; "
        f"the Jacobian's singular values are {mean(f.jacobians.mean):.2g} in the mean"
    )


def _vanishing_gated(f: LayerDiagnosis) -> str:
    if f.flow.verdict != "vanishing" or not f.gated:
        return ""
    longest = max((median(times) for times in f.jacobians.times.values()), default=0.0)
    return (
        f"half of a gradient is gone after {f.flow.half_life:.2g} of {len(f.flow.lags)} frames; "
        f"the median unit remembers for {longest:.2g}"
    )


def _exploding(f: LayerDiagnosis) -> str:
    if f.flow.verdict != "exploding":
        return ""
    return (
        f"a gradient grows {f.flow.decay_per_frame:.4g} times a frame, "
        f"{f.flow.reach:.3g} times over {len(f.flow.lags)}; "
        f"the Jacobian's largest singular value is {median(f.jacobians.largest or [math.inf]):.2g}"
    )


def _saturated(f: LayerDiagnosis) -> str:
    ends = {name: f.gates.low[name] + f.gates.high[name] for name in f.gates.low}
    stuck = {name: part for name, part in ends.items() if part > 0.5}
    return ", ".join(f"{part:.0%} of {name}'s values are at an end of its range" for name, part in stuck.items())


def _dead(f: LayerDiagnosis) -> str:
    still = {leaf: part for leaf, part in f.gates.dead.items() if part > 0.05}
    return ", ".join(f"{part:.0%} of the units of {leaf} do not move" for leaf, part in still.items())


def _growing(f: LayerDiagnosis) -> str:
    grown = {leaf: times for leaf, times in f.gates.growth.items() if times > 3}
    return ", ".join(f"{leaf} grows {times:.2g} times from early frames to late ones" for leaf, times in grown.items())


def _short_sighted(f: LayerDiagnosis) -> str:
    seen, lags = f.flow.horizon, len(f.flow.input_norms) - 1
    if f.flow.verdict != "healthy" or lags < 20 or seen > lags // 4:
        return ""
    return f"an input moves the output by 1 % of what the strongest does for {seen} of {lags} frames"


# What is found -> what it is called, and what mends it. Adding a symptom is adding a row.
SYMPTOMS: tuple[tuple[Callable[[LayerDiagnosis], str], str, str], ...] = (
    (
        _vanishing_plain,
        "gradients vanish",
        'Take a gated cell (cell="lstm" or "gru"), or keep this one and begin with orthogonal recurrent weights '
        '(init="orthogonal"); layer normalisation (cell="layer_norm_lstm") helps too. Until then truncating time costs '
        "nothing.",
    ),
    (
        _vanishing_gated,
        "gradients vanish in spite of gates",
        "Let units remember for as long as the data needs: recurra.chrono(model, longest=T), or a forget bias of 1 to "
        "3.",
    ),
    (
        _exploding,
        "gradients explode",
        "Clip their norm (clip=1.0), lower the learning rate, and begin with recurrent weights whose singular values "
        'are 1 (init="orthogonal"); layer normalisation bounds what a step can do.',
    ),
    (
        _saturated,
        "gates are stuck",
        "Smaller inputs and weights bring them back: normalise the inputs, use layer normalisation, decay the weights, "
        "or lower the learning rate.",
    ),
    (
        _dead,
        "units are dead",
        "Fewer units would do as well; a lower learning rate and other initial weights revive them.",
    ),
    (
        _growing,
        "states grow with time",
        "Sequences longer than those of training will not be understood: reset the state, or take a cell whose state "
        'is bounded (cell="gru", layer normalisation, coupled gates).',
    ),
    (
        _short_sighted,
        "gradients live, but old inputs hardly count",
        "Should the task need them, train on longer pieces of time, or begin with recurra.chrono(model, longest=T).",
    ),
)


def letter(findings: list[LayerDiagnosis]) -> list[Advice]:
    """What is wrong, layer by layer; empty where nothing is."""
    return [
        Advice(f.flow.name, symptom, evidence, remedy)
        for f in findings
        for sign, symptom, remedy in SYMPTOMS
        if (evidence := sign(f))
    ]
