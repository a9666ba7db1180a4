"""Word vectors from texts alone, without labels: what words stand near to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from recurra.data.vocabulary import PAD_ID, Ids
from recurra.errors import OptionError

Vectors = np.ndarray[Any, np.dtype[np.float64]]


def cooccurrence_vectors(
    texts: Sequence[Ids], vocabulary: int, width: int, *, window: int = 10, seed: int = 0
) -> Vectors:
    """Vectors of words that are alike where the words around them are.

    Pairs of words up to `window` apart are counted, near ones more (Pennington et al., 2014); the counts become
    positive pointwise mutual information with smoothed contexts, and that matrix its best approximation of rank `width`
    (Levy, Goldberg & Dagan, 2015, sections 3 and 5).

    Args:
        texts: word ids of each text.
        vocabulary: V; ids are below it.
        width: D; where there are fewer dimensions than that, the rest is zero.
        window: how far apart two words may be.
        seed: of the approximation; the same gives the same vectors.

    Returns:
        ``(V, D)``, with a root mean square of 1 over the words that were seen; others are zero.

    Raises:
        OptionError: `width` or `window` is not positive.

    Example:
        >>> texts = [np.array([2, 3, 4]), np.array([2, 5, 4])] * 3  # 3 and 5 stand in the same place
        >>> vectors = cooccurrence_vectors(texts, 6, 2, window=1)
        >>> bool(np.allclose(vectors[3], vectors[5])), bool(np.allclose(vectors[3], vectors[4]))
        (True, False)
    """
    if width < 1 or window < 1:
        raise OptionError("width and window must be positive", received=f"width={width}, window={window}")
    gap = np.full(window, PAD_ID, dtype=np.int32)  # between texts, so that no pair spans two
    words = np.concatenate([part for text in texts for part in (text, gap)])
    counts = sparse.csr_matrix((vocabulary, vocabulary))
    for distance in range(1, window + 1):
        left, right = words[:-distance], words[distance:]
        inside = (left != PAD_ID) & (right != PAD_ID)
        weight = np.full(inside.sum(), 1 / distance)
        counts = counts + sparse.csr_matrix((weight, (left[inside], right[inside])), shape=counts.shape)
    counts = (counts + counts.T).tocoo()
    total = np.bincount(counts.row, counts.data, vocabulary)
    smooth = total**0.75  # rare contexts would otherwise weigh too much
    expected = total[counts.row] * smooth[counts.col] / smooth.sum()
    information = np.maximum(np.log(counts.data / expected), 0)
    matrix = sparse.csr_matrix((information, (counts.row, counts.col)), shape=counts.shape)
    found = np.zeros((vocabulary, width))
    rank = min(width, vocabulary - 1)
    left, strength, _ = randomized_svd(matrix, rank, n_iter=4, random_state=seed)
    found[:, :rank] = left * np.sqrt(strength)
    seen = total > 0
    found[~seen] = 0  # and not what rounding left
    scale = np.sqrt(np.mean(found[seen] ** 2)) if seen.any() else 0.0
    return found / scale if scale else found
