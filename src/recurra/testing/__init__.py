"""Suites that hold what the package promises, shipped so that authors of cells and executors can run them on their own.

Needs pytest and hypothesis (``pip install recurra[dev]``).
"""

from recurra.testing.assertions import assert_within_eps, relative_error
from recurra.testing.cases import CASES, Case, Scan, contracting, make_scan
from recurra.testing.suites import CellConformance, ExecutorConformance

__all__ = [
    "CASES",
    "Case",
    "CellConformance",
    "ExecutorConformance",
    "Scan",
    "assert_within_eps",
    "contracting",
    "make_scan",
    "relative_error",
]
