"""torch.nn in a process whose environment says something else to torch, such as THP_MEM_ALLOC_ENABLE=1."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.torch_modules import TORCH_NN, Network, measured, module_for, over_time, training


def versions() -> dict[str, str]:
    """What figures depend on."""
    return {"torch": torch.__version__}


def prepare(spec: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    """See ``benchmarks.peers.serve``."""
    return PREPARE[spec["what"]](spec, {name: torch.from_numpy(a) for name, a in arrays.items()})


def _weights(given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("w."): a for name, a in given.items() if name.startswith("w.")}


def _scan(spec: Mapping[str, Any], given: dict[str, torch.Tensor]) -> Any:
    if spec["cell"] not in TORCH_NN:
        return f"torch.nn has no {spec['cell']}"
    module = module_for(spec["cell"], _weights(given))
    x, lengths = given["x"].requires_grad_(spec["train"]), given.get("lengths")
    return measured(module, x, given["dy"], lambda: over_time(module, x, lengths), train=spec["train"]), _export


def _article(spec: Mapping[str, Any], given: dict[str, torch.Tensor]) -> Any:
    lengths = given.get("lengths")
    network = Network(spec, nn.LSTM, "whole" if lengths is None else "padded")
    network.load_state_dict(_weights(given))
    return training(network, given["ids"], given["labels"], lengths), _export


def _export(done: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: value.numpy() for name, value in done.items()}


PREPARE = {"scan": _scan, "article": _article}
