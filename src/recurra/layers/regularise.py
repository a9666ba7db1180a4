"""What keeps a recurrent network from learning its texts by heart: the parts of AWD-LSTM (Merity et al., 2018).

Its remaining part, weights of the recurrence that are dropped, is the wrapper :func:`recurra.weight_drop`.
"""

import torch
from torch import Tensor, nn

from recurra.cells.wrap import probability


def locked_dropout(x: Tensor, p: float, training: bool = True, *, time: int = 1) -> Tensor:
    r"""Drop the same units of a sequence in all of its frames (Gal & Ghahramani, 2016).

    .. math::
        y_t = m \odot x_t, \qquad (1 - p) m \sim \mathrm{Bernoulli}(1 - p)

    Args:
        x: ``(B, T, ...)``, or with time elsewhere. p: the part that is dropped.
        training: False: `x` as it is. time: the axis of frames.

    Raises:
        OptionError: `p` is out of range.

    Example:
        >>> y = locked_dropout(torch.ones(2, 5, 3), 0.5)
        >>> bool((y == y[:, :1]).all())
        True
    """
    probability("p", p)
    if not training or not p:
        return x
    shape = [1 if axis == time else n for axis, n in enumerate(x.shape)]
    return x * nn.functional.dropout(x.new_ones(shape), p)


class LockedDropout(nn.Module):
    """:func:`locked_dropout` as a module.

    Args:
        p: the part of units that is dropped. batch_first: frames stand on axis 1; on axis 0 where it is False.

    Raises:
        OptionError: `p` is out of range.

    Example:
        >>> LockedDropout(0.5).eval()(torch.ones(1, 2, 1)).flatten()
        tensor([1., 1.])
    """

    def __init__(self, p: float, *, batch_first: bool = True):
        super().__init__()
        probability("p", p)
        self.p, self.batch_first = p, batch_first

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with the units of each sequence dropped that this call draws."""
        return locked_dropout(x, self.p, self.training, time=1 if self.batch_first else 0)

    def extra_repr(self) -> str:
        """What is dropped."""
        return f"p={self.p}, batch_first={self.batch_first}"


def embedded(tokens: Tensor, weight: Tensor, p: float = 0.0, training: bool = True) -> Tensor:
    """Vectors of tokens, where training drops a part of the vocabulary, wherever it occurs (Gal & Ghahramani, 2016).

    Args:
        tokens: ``(...)`` ids below V. weight: ``(V, D)``.
        p: the part of the rows of `weight` that is dropped; what is left is scaled by 1 / (1 - p).
        training: False: nothing is dropped.

    Returns:
        ``(..., D)``.

    Raises:
        OptionError: `p` is out of range.

    Example:
        >>> x = embedded(torch.tensor([[0, 1, 0, 1, 0]]), torch.ones(2, 3), p=0.5)
        >>> bool((x[:, 0] == x[:, 2]).all())
        True
    """
    probability("p", p)
    x = nn.functional.embedding(tokens, weight)
    if not training or not p:
        return x
    return x * nn.functional.dropout(weight.new_ones(len(weight), 1), p)[tokens]


def activation_penalty(y: Tensor) -> Tensor:
    r"""Activation regularisation: the mean of :math:`y_t^2`, to be added to a loss by a factor (Merity et al., 2017).

    Args:
        y: outputs of recurrent layers, of any shape, after dropout.

    Example:
        >>> activation_penalty(torch.tensor([[[1.0, 3.0]]]))
        tensor(5.)
    """
    return y.square().mean()


def temporal_activation_penalty(y: Tensor, *, time: int = 1) -> Tensor:
    r"""Temporal activation regularisation: the mean of :math:`(y_t - y_{t-1})^2` (Merity et al., 2017).

    Args:
        y: outputs of recurrent layers, before dropout, ``(B, T, H)`` or with time elsewhere; of one frame it is 0.
        time: the axis of frames.

    Example:
        >>> temporal_activation_penalty(torch.tensor([[[1.0], [3.0], [3.0]]]))
        tensor(2.)
    """
    if y.shape[time] < 2:
        return y.new_zeros(())
    return y.diff(dim=time).square().mean()


class TiedHead(nn.Module):
    r"""Scores of tokens by the matrix that embeds them (Inan et al., 2017; Press & Wolf, 2017).

    .. math::
        \mathrm{scores} = E y + b

    It holds the bias alone and is given the matrix, so that no run folder holds that twice.

    Args:
        vocabulary: V, the number of tokens.

    Example:
        >>> embedding = nn.Embedding(10, 4)
        >>> TiedHead(10)(torch.zeros(2, 5, 4), embedding.weight).shape
        torch.Size([2, 5, 10])
    """

    def __init__(self, vocabulary: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, y: Tensor, weight: Tensor) -> Tensor:
        """Scores ``(..., V)`` of outputs ``(..., D)`` by an embedding ``(V, D)``."""
        return nn.functional.linear(y, weight, self.bias)
