"""The native machine: step programs on the CPU, compiled once per target.

``RECURRA_CPU_TARGET`` forces a target (``x86-64-v2``, ``x86-64-v3``, ``x86-64-v4``, ``aarch64``); otherwise it is the
best that the processor can run. ``recurra doctor`` shows it.
"""

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from recurra.errors import NativeTargetError


@cache
def native() -> Any:
    """The extension module, or None where Recurra was installed without it.

    Raises:
        NativeTargetError: ``RECURRA_CPU_TARGET`` names a target that is not compiled in, or cannot run here.
    """
    machine = _extension()
    if machine is None:
        return None
    try:
        machine.target()
    except ValueError as error:
        raise NativeTargetError(str(error), instead="unset RECURRA_CPU_TARGET, or name one of these") from None
    return machine


def missing() -> str:
    """Why there is no native machine; empty where there is one."""
    if _extension() is not None:
        return ""
    return (
        "Recurra was installed without its compiled part; with a C++20 compiler at hand, "
        "RECURRA_NATIVE=1 pip install . builds it, or shows why it cannot"
    )


def targets() -> dict[str, bool]:
    """The CPU targets that were compiled in, worst first, and whether this processor can run them."""
    machine = _extension()
    return {} if machine is None else dict(machine.targets())


def _extension() -> ModuleType | None:
    import torch  # noqa: F401 - its pool of threads is the one to share, so it must be loaded first

    try:
        return import_module("recurra.kernels.cpu._native")
    except ModuleNotFoundError:  # not built; an extension that is there and cannot be loaded is an error
        return None
