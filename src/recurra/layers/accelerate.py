"""Put the drop-ins in place of torch.nn's recurrent layers, anywhere inside of a model."""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pack_padded_sequence

from recurra.errors import OptionError
from recurra.layers.drop_in import GRU, LSTM, RNN

SWAPS: dict[type[nn.Module], type[nn.Module]] = {nn.RNN: RNN, nn.LSTM: LSTM, nn.GRU: GRU}
_NAMES = {kind.__name__ for kind in SWAPS}
_NOISE = 0.1  # timings of the same thing differ by so much: a gain below it is none


@dataclass(frozen=True)
class Acceleration:
    """What became of each recurrent layer of a model.

    Attributes:
        model: the model that was given.
        swapped: path -> what is gained. left: path -> why it stays as it was.
    """

    model: nn.Module
    swapped: dict[str, str]
    left: dict[str, str]

    def __str__(self) -> str:
        rows = [f"swapped  {path or '(the model)'}: {why}" for path, why in self.swapped.items()]
        rows += [f"left     {path or '(the model)'}: {why}" for path, why in self.left.items()]
        return "\n".join(rows) or "there is no recurrent layer of torch.nn in this model"


def accelerate(model: nn.Module, *, only_if_faster: bool = True) -> Acceleration:
    """Let every RNN, LSTM and GRU of torch.nn inside of a model run on the engine, in place.

    A layer changes its class and nothing else: parameters, hooks, parametrisations, mode and all references to it stay,
    so optimisers and checkpoints go on working, and a layer that stands in several places is swapped in all of them.

    Args:
        model: anything; a layer itself too.
        only_if_faster: leave a layer that gains nothing on this machine: packed input of its sizes is timed for some
            milliseconds, once for each size. Padded input gains less, and most where a layer is small or no LSTM.

    Returns:
        What was swapped and what was left, with reasons; printable.

    Raises:
        OptionError: `model` is no module.

    Example:
        >>> model = nn.ModuleDict({"encoder": nn.LSTM(3, 4), "head": nn.Linear(4, 2)})
        >>> found = accelerate(model, only_if_faster=False)
        >>> print(found)
        swapped  encoder: as asked for
        >>> type(model["encoder"]).__module__
        'recurra.layers.drop_in'
    """
    if not isinstance(model, nn.Module):
        raise OptionError("accelerate takes a torch.nn.Module", received=type(model).__name__)
    swapped: dict[str, str] = {}
    left: dict[str, str] = {}
    said: dict[int, tuple[dict[str, str], str]] = {}  # a layer in several places is looked at once
    copied = {id(m) for outer in model.modules() if isinstance(outer, nn.DataParallel) for m in outer.modules()}
    for path, module in model.named_modules(remove_duplicate=False):
        if id(module) not in said:
            verdict = _refusal(module)
            if verdict == "" and id(module) in copied:
                verdict = "it is inside of nn.DataParallel, which copies layers in each call"
            if verdict is None:
                continue
            if not verdict:
                gain, why = (True, "as asked for") if not only_if_faster else _gain(module)
                said[id(module)] = (swapped if gain else left), why
                if gain:
                    _swap(module)
            else:
                said[id(module)] = left, verdict
        where, why = said[id(module)]
        where[path] = why
    return Acceleration(model, swapped, left)


def _refusal(module: nn.Module) -> str | None:
    """Why a layer cannot be swapped, empty where it can; None for what is no recurrent layer of torch."""
    kind = _kind(module)
    if kind in SWAPS:
        lazy = any(isinstance(p, nn.parameter.UninitializedParameter) for p in module.parameters())
        if lazy:
            return "its parameters have no shape yet: run it once first"
        if "forward" in vars(module):
            return "its forward was replaced, so its class would change nothing"
        return "its parameters hold no numbers: move it off the meta device first" if _on_meta(module) else ""
    if kind in SWAPS.values():
        return "it is one of ours already"
    if isinstance(module, nn.RNNBase):
        return f"its class {kind.__qualname__} is not torch.nn's own, and may compute something else"
    if isinstance(module, torch.jit.ScriptModule) and module.original_name in _NAMES:
        return "it is compiled TorchScript: accelerate before torch.jit.script"
    if kind.__module__.startswith("torch.ao.") and kind.__name__ in _NAMES:
        return "it is quantised"
    return None


def _on_meta(module: nn.Module) -> bool:
    return any(p.is_meta for p in module.parameters())


def _kind(module: nn.Module) -> type[nn.Module]:
    """The class of a module; of a parametrised one, which has a class of its own, the one below that."""
    return type(module).__mro__[1] if parametrize.is_parametrized(module) else type(module)


def _swap(module: nn.Module) -> None:
    kind = type(module)
    ours = SWAPS[_kind(module)]
    if parametrize.is_parametrized(module):  # the properties that stand for its parameters come along
        own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
        ours = type(kind.__name__, (ours,), own)
    module.__class__ = ours


def _gain(module: Any) -> tuple[bool, str]:
    """Whether packed input runs faster."""
    weight = next(module.parameters())
    sizes = (module.input_size, module.hidden_size, module.num_layers, module.bidirectional, module.proj_size)
    theirs, ours = _measured(module.mode, *sizes, weight.dtype, weight.device, torch.get_num_threads())
    figures = f"packed input takes {1e3 * ours:.2g} ms where torch.nn takes {1e3 * theirs:.2g} ms here"
    return ours < (1 - _NOISE) * theirs, figures


@functools.lru_cache(maxsize=256)
def _measured(
    mode: str,
    D: int,
    H: int,
    L: int,
    bidirectional: bool,
    P: int,
    dtype: torch.dtype,
    device: torch.device,
    threads: int,  # noqa: ARG001 - part of the key
) -> tuple[float, float]:
    """Seconds of a training step on packed frames, T = 32 and B = 8, by torch.nn's layer and by ours: the best of 4."""
    kind: Any = {"LSTM": nn.LSTM, "GRU": nn.GRU}.get(mode, nn.RNN)
    options: dict[str, Any] = {"num_layers": L, "bidirectional": bidirectional, "dtype": dtype, "device": device}
    options |= {"proj_size": P} if P else {}
    options |= {"nonlinearity": mode.removeprefix("RNN_").lower()} if mode.startswith("RNN") else {}
    with torch.random.fork_rng(devices=[]):
        layers = [kind(D, H, **options), SWAPS[kind](D, H, **options)]
        packed = pack_padded_sequence(torch.randn(32, 8, D, dtype=dtype, device=device), torch.arange(32, 0, -4))
    best = [float("inf")] * 2
    for _ in range(4):
        for k, run in enumerate(_steps(layers, packed)):
            began = time.perf_counter()
            run()
            best[k] = min(best[k], time.perf_counter() - began)
    return best[0], best[1]


def _steps(layers: list[nn.Module], packed: Any) -> Iterator[Callable[[], None]]:
    for layer in layers:

        def run(layer: nn.Module = layer) -> None:
            with torch.enable_grad():
                layer(packed)[0].data.sum().backward()
            if packed.data.is_cuda:
                torch.cuda.synchronize()

        yield run
