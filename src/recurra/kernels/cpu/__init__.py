"""The native machine: step programs on the CPU, compiled once per target."""

from functools import cache
from typing import Any


@cache
def native() -> Any:
    """The extension module, or None where Recurra was built without it."""
    import torch  # noqa: F401 - its pool of threads is the one to share, so it must be loaded first

    try:
        from recurra.kernels.cpu import _native
    except ImportError:
        return None
    return _native
