"""Settings so large that no run folder could be read again, refused before any text is read."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from recurra.errors import OptionError
from recurra.tasks.saved import LARGEST_LAYERS, require_weights
from recurra.train.randomness import seeded
from recurra.train.settings import plain

LARGEST_WIDTH = 2**20  # units; a layer of so many that are all connected has more weights than any run


def require_network(model: Any, make: Callable[[], nn.Module]) -> None:
    """Make a network of a task's settings, of few words, to see what is wrong with them.

    Args:
        model: its settings ``cell``, ``hidden_size``, ``num_layers`` and ``embedding_size`` are looked at.
        make: makes the network; of a cell of ours without memory for its weights.

    Raises:
        OptionError: it has more layers, units or weights than a run may have; or see the layers.
    """
    widths = model.hidden_size
    several = isinstance(widths, list | tuple)
    layers = len(widths) if several else plain(model.num_layers)
    if layers is None:
        raise OptionError(
            "num_layers=None goes with one hidden_size a layer",
            received=f"hidden_size={widths!r}",
            instead="num_layers=1, or more (--num-layers 1)",
        )
    if isinstance(layers, int) and layers > LARGEST_LAYERS:
        raise OptionError(f"num_layers must be at most {LARGEST_LAYERS}", received=str(layers)[:40])
    for width in map(plain, (*(widths if several else [widths]), model.embedding_size)):
        if isinstance(width, int) and width > LARGEST_WIDTH:
            raise OptionError(
                f"hidden_size and embedding_size must be at most {LARGEST_WIDTH:,}", received=str(width)[:40]
            )
    with seeded(0), torch.device("meta") if isinstance(model.cell, str) else nullcontext():
        network = make()
    require_weights(network)  # without those of words
