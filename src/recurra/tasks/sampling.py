"""Which token comes next: drawn from scores, by temperature, the best k, and the nucleus."""

import torch
from torch import Tensor

from recurra.errors import OptionError
from recurra.train.settings import require_number, require_whole


def require_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Check what :func:`drawn` is told.

    Raises:
        OptionError: a value is out of its range.
    """
    require_number("temperature", temperature, least=0)
    if top_k is not None:
        require_whole("top_k", top_k, least=1)
    if top_p is not None:
        require_number("top_p", top_p, above=0)
        if top_p > 1:
            raise OptionError("top_p must be a number above 0 and at most 1", received=repr(top_p))


def tempered(scores: Tensor, temperature: float) -> Tensor:
    """The probabilities of scores at a temperature above 0, however small, along the last axis.

    Example:
        >>> tempered(torch.tensor([2.0, 5.0, -torch.inf]), 1e-310).tolist()
        [0.0, 1.0, 0.0]
    """
    best = scores.amax(-1, keepdim=True)
    return ((scores - best) / max(temperature, torch.finfo(scores.dtype).tiny)).softmax(-1)


def drawn(
    scores: Tensor, *, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> int:
    r"""A token of :math:`p \propto \exp(\mathrm{scores} / \mathrm{temperature})`, of the likeliest ones alone.

    Args:
        scores: ``(V,)`` before the softmax; -inf: never.
        temperature: 0: the likeliest. top_k: of the likeliest k; None: of all.
        top_p: of the fewest likeliest that hold this part of the probability (Holtzman et al., 2020); None: of all.
        generator: what is drawn from.

    Example:
        >>> scores = torch.tensor([0.0, 5.0, 4.0])
        >>> drawn(scores, temperature=0, top_k=None, top_p=None, generator=torch.Generator())
        1
        >>> {drawn(scores, temperature=9, top_k=2, top_p=None, generator=torch.Generator()) for _ in range(9)} <= {1, 2}
        True
    """
    if not temperature:
        return int(scores.argmax())
    p = tempered(scores.double(), temperature)
    if top_k is None and top_p is None:
        return int(torch.multinomial(p, 1, generator=generator))
    p, token = p.sort(descending=True, stable=True)
    if top_k is not None:
        p = p[:top_k]
    if top_p is not None:
        p = p[p.cumsum(-1) - p < top_p * p.sum()]
    return int(token[torch.multinomial(p, 1, generator=generator)])
