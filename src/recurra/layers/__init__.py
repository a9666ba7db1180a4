"""The nn.Module surface."""

from recurra.layers.recurrent import LayerState, Recurrent

__all__ = ["LayerState", "Recurrent"]
