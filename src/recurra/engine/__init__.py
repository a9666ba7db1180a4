"""One step in, a fast scan out."""

from recurra.engine.explain import Explanation, explain
from recurra.engine.options import Options, current_options, options
from recurra.engine.plan import EXECUTORS, Plan, executors, plan_for, requests
from recurra.engine.scan import scan

__all__ = [
    "EXECUTORS",
    "Explanation",
    "Options",
    "Plan",
    "current_options",
    "executors",
    "explain",
    "options",
    "plan_for",
    "requests",
    "scan",
]
