"""The nn.Module surface."""

from recurra.layers.accelerate import Acceleration, accelerate
from recurra.layers.attention import Attention
from recurra.layers.drop_in import GRU, LSTM, RNN
from recurra.layers.recurrent import LayerState, Recurrent
from recurra.layers.stream import Stream

__all__ = ["GRU", "LSTM", "RNN", "Acceleration", "Attention", "LayerState", "Recurrent", "Stream", "accelerate"]
