"""How far back a recurrent network sees, and how far its gradients reach."""

from typing import TYPE_CHECKING, Any

from recurra.diagnose.diagnosis import Diagnosis, diagnose
from recurra.diagnose.flow import Flow, gradient_flow
from recurra.diagnose.gates import Gates, gates
from recurra.diagnose.jacobians import Jacobians, jacobians
from recurra.diagnose.letter import Advice, LayerDiagnosis
from recurra.diagnose.runs import Run, runs_of

if TYPE_CHECKING:
    from recurra.diagnose.callback import WatchGradients

__all__ = [
    "Advice",
    "Diagnosis",
    "Flow",
    "Gates",
    "Jacobians",
    "LayerDiagnosis",
    "Run",
    "WatchGradients",
    "diagnose",
    "gates",
    "gradient_flow",
    "jacobians",
    "runs_of",
]


def __getattr__(name: str) -> Any:
    # Lazy: Lightning takes seconds to import, and is not needed to look at a model.
    if name == "WatchGradients":
        from recurra.diagnose.callback import WatchGradients

        return WatchGradients
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
