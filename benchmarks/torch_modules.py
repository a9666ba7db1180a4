"""torch.nn's side of a case, for this process and for one with other settings."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Run = Callable[[], dict[str, Tensor]]

# cell -> its class in torch.nn; what torch has no class for is compared with the eager loop alone
TORCH_NN: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU, "lstmp": nn.LSTM}


def module_for(cell: str, weights: Mapping[str, Tensor]) -> nn.RNNBase:
    """The module of torch.nn that computes what the cell of that name does with these weights."""
    projection = {"proj_size": len(weights["weight_hr"])} if "weight_hr" in weights else {}
    blocks = {"rnn": 1, "gru": 3}.get(cell, 4)
    D, H = weights["weight_ih"].shape[1], len(weights["weight_ih"]) // blocks
    module = TORCH_NN[cell](D, H, **projection).to(weights["weight_ih"].dtype)
    take(module, weights)
    return module


def take(module: nn.RNNBase, weights: Mapping[str, Tensor], suffix: str = "l0") -> None:
    """Put the weights of a cell into the layer and direction of a module that has this suffix."""
    with torch.no_grad():
        second = module.get_parameter(f"bias_hh_{suffix}").zero_()
        for name, weight in weights.items():
            if name == "bias_hn":
                second[-module.hidden_size :] = weight
            else:
                module.get_parameter(f"{'bias_ih' if name == 'bias' else name}_{suffix}").copy_(weight)


def over_time(module: nn.RNNBase, x: Tensor, lengths: Tensor | None) -> Tensor:
    """The outputs ``(T, B, H)``, by packing where sequences have lengths."""
    if lengths is None:
        return module(x)[0]
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    return pad_packed_sequence(module(packed)[0], total_length=len(x))[0]


def measured(module: nn.Module, x: Tensor, dy: Tensor, forward: Callable[[], Tensor], *, train: bool) -> Run:
    """One call: forward, or forward and backward into empty gradients."""

    def infer() -> dict[str, Tensor]:
        with torch.no_grad():
            return {"y": forward()}

    def step() -> dict[str, Tensor]:
        x.grad = None
        module.zero_grad(set_to_none=True)
        y = forward()
        y.backward(dy)
        assert x.grad is not None
        return {"y": y.detach(), "dx": x.grad}

    return step if train else infer


# --- the article's network --------------------------------------------------------------------------------------------


class Network(nn.Module):
    """Words to classes: an embedding, two recurrent layers, a linear layer on the last output."""

    def __init__(self, sizes: Mapping[str, int], recurrent: Callable[..., nn.LSTM], last: str):
        super().__init__()
        self.embedding = nn.Embedding(sizes["words"], sizes["D"])
        self.lstm = recurrent(sizes["D"], sizes["H"], num_layers=2)
        self.out = nn.Linear(sizes["H"], sizes["classes"])
        self.last = last

    def forward(self, ids: Tensor, lengths: Tensor | None) -> Tensor:
        """``(T, B)`` to ``(B, classes)``."""
        return self.out(LAST[self.last](self.lstm, self.embedding(ids), lengths))


# How the output of each sequence's last word is had, (B, H).
LAST: dict[str, Callable[[Any, Tensor, Any], Tensor]] = {
    "whole": lambda lstm, x, lengths: lstm(x)[0][-1],
    "padded": lambda lstm, x, lengths: lstm(x)[0][lengths - 1, torch.arange(len(lengths))],
    "packed": lambda lstm, x, lengths: lstm(pack_padded_sequence(x, lengths, enforce_sorted=False))[1][0][-1],
    "lengths": lambda lstm, x, lengths: lstm(x, lengths=lengths)[1][0][-1],
}


def training(network: Network, ids: Tensor, labels: Tensor, lengths: Tensor | None) -> Run:
    """One step of Adam; its loss is what shows that others do the same."""
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> dict[str, Tensor]:
        optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(network(ids, lengths), labels)
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach().reshape(1)}

    return step
