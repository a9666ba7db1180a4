"""Nested states as JSON and named tensors, and back: what a checkpoint holds, without pickle.

JSON has no tuples, no integer keys, no NaN and no tensors, so those become objects with one key that says what they
are: ``{"tuple": [...]}``, ``{"dict": [[key, value], ...]}``, ``{"float": "nan"}``, ``{"tensor": name}``. Types are
matched exactly: a subclass could carry state that this would lose, so it is refused rather than flattened.
"""

import math
import reprlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurra.errors import RunFolderError, UnsavableStateError

PLAIN = (type(None), bool, int, str)


def encode(value: Any, tensors: dict[str, Tensor], where: str = "") -> Any:
    """`value` as JSON; its tensors are added to `tensors`, detached, on the CPU, sharing no memory.

    Raises:
        UnsavableStateError: something in it is of a type that cannot be written, at the place that the message names.

    Example:
        >>> found = {}
        >>> encode({"step": (1, torch.zeros(2))}, found)
        {'dict': [['step', {'tuple': [1, {'tensor': '0 step.1'}]}]]}
        >>> decode(_, found)
        {'step': (1, tensor([0., 0.]))}
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is list:
        return [encode(v, tensors, f"{where}.{i}") for i, v in enumerate(value)]
    if kind is tuple:
        return {"tuple": [encode(v, tensors, f"{where}.{i}") for i, v in enumerate(value)]}
    if kind in (dict, OrderedDict):
        name = "dict" if kind is dict else "ordered"
        pairs = value.items()
        return {name: [[encode(k, tensors, where), encode(v, tensors, f"{where}.{k}")] for k, v in pairs]}
    if isinstance(value, Tensor) and kind in (Tensor, torch.nn.Parameter, torch.nn.Buffer):
        return {"tensor": _add(value, tensors, where)}
    if kind is np.ndarray and value.dtype.kind in "biuf":
        return {"array": _add(torch.from_numpy(np.ascontiguousarray(value)), tensors, where)}
    raise UnsavableStateError(
        f"a state cannot be saved: {where.strip('.') or 'the whole'} is of a type that checkpoints do not hold",
        received=f"{kind.__module__}.{kind.__qualname__}",
        instead="None, bool, int, float, str, list, tuple, dict, dense tensors and arrays of numbers",
    )


def _add(tensor: Tensor, tensors: dict[str, Tensor], where: str) -> str:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise UnsavableStateError(
            f"a state cannot be saved: the tensor {where.strip('.')} is not a dense one of real numbers",
            received=f"{tensor.dtype}, {tensor.layout}",
        )
    name = f"{len(tensors)} {where.strip('.')}"  # the count keeps apart the keys 0 and "0"
    tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return name


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of :func:`encode`.

    Raises:
        RunFolderError: the JSON is not of this form.
    """
    if type(value) in (*PLAIN, float):
        return value
    if isinstance(value, list):
        return [decode(v, tensors) for v in value]
    if isinstance(value, dict) and len(value) == 1:
        ((tag, content),) = value.items()
        if tag in DECODE:
            try:
                return DECODE[tag](content, tensors)
            except RunFolderError:
                raise  # a ValueError too, of a value further in
            except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
                raise RunFolderError("a checkpoint is damaged: a value cannot be read", received=repr(tag)) from error
    raise RunFolderError("a checkpoint is damaged: a value of no known form", received=reprlib.repr(value))


def _pairs(content: Any, tensors: Mapping[str, Tensor]) -> list[tuple[Any, Any]]:
    return [(decode(k, tensors), decode(v, tensors)) for k, v in content]


DECODE: dict[str, Callable[[Any, Mapping[str, Tensor]], Any]] = {
    "float": lambda content, _: float(content),
    "tuple": lambda content, tensors: tuple(decode(v, tensors) for v in content),
    "dict": lambda content, tensors: dict(_pairs(content, tensors)),
    "ordered": lambda content, tensors: OrderedDict(_pairs(content, tensors)),
    "tensor": lambda content, tensors: tensors[content],
    "array": lambda content, tensors: tensors[content].numpy(),
}
