"""The nn.Module surface."""

from recurra.layers.accelerate import Acceleration, accelerate
from recurra.layers.attention import Attention
from recurra.layers.chunks import tbptt
from recurra.layers.drop_in import GRU, LSTM, RNN
from recurra.layers.recurrent import LayerState, Recurrent
from recurra.layers.regularise import (
    LockedDropout,
    TiedHead,
    activation_penalty,
    embedded,
    locked_dropout,
    temporal_activation_penalty,
)
from recurra.layers.stream import Stream

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Acceleration",
    "Attention",
    "LayerState",
    "LockedDropout",
    "Recurrent",
    "Stream",
    "TiedHead",
    "accelerate",
    "activation_penalty",
    "embedded",
    "locked_dropout",
    "tbptt",
    "temporal_activation_penalty",
]
