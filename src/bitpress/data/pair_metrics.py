"""How well vectors of texts agree with people: correlation of cosines with scores, and retrieval (numpy, float64)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitpress.data.metrics import pearson, spearman

RECALL_AT = (1, 10)
_CHUNK = 1024  # rows of similarities that are in memory at once


def pair_metrics(
    vectors: NDArray[Any], scores: NDArray[Any] | None, seconds: Sequence[str] | None = None
) -> dict[str, float]:
    """Of N pairs of texts, the headline first: with scores ``spearman`` and ``pearson`` of the cosines with them;
    without ``mrr``, ``recall@1`` and ``recall@10`` of finding a pair's second text among all second texts.

    Args:
        vectors: [2N, d], the two of a pair one after the other.
        scores: [N], or None.
        seconds: the N second texts: those that are the same count as one.

    Raises:
        ValueError: there is no pair, vectors that are not two a pair, or a value that is not finite.
    """
    if vectors.ndim != 2 or len(vectors) == 0 or len(vectors) % 2:
        raise ValueError(f"pairs of texts cannot be scored by vectors of shape {vectors.shape}; two a pair are needed")
    if scores is not None and 2 * len(scores) != len(vectors):
        raise ValueError(f"found {len(vectors)} vectors and {len(scores)} scores; two vectors a score are needed")
    if not np.isfinite(vectors).all():
        raise ValueError("the model's outputs contain NaN or infinity")
    unit = unit_rows(vectors.astype(np.float64))
    first, second = unit[0::2], unit[1::2]
    if scores is not None:
        cosines, targets = (first * second).sum(axis=1), scores.astype(np.float64)
        return {"spearman": spearman(cosines, targets), "pearson": pearson(cosines, targets)}
    ranks = retrieval_ranks(first, second, seconds)
    recalls = {f"recall@{k}": float((ranks <= k).mean()) for k in RECALL_AT}
    return {"mrr": float((1.0 / ranks).mean()), **recalls}


def unit_rows(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row divided by its length; a row of zeros stays."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(lengths == 0, 1.0, lengths)


def retrieval_ranks(
    first: NDArray[np.float64], second: NDArray[np.float64], seconds: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Rank from 1 of each pair's second vector among all different second texts, by the product with the first vector;
    others that are as near count as nearer, so that vectors that are all the same find nothing.

    Args:
        first, second: [N, d].
        seconds: as for :func:`pair_metrics`; None: all are different.
    """
    if seconds is None:
        candidates = own = np.arange(len(second))
    else:
        _, candidates, own = np.unique(np.array(seconds, dtype=object), return_index=True, return_inverse=True)
    ranks = np.empty(len(first), np.int64)
    for start in range(0, len(first), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(first)))
        similarities = first[rows] @ second[candidates].T
        ranks[rows] = (similarities >= similarities[np.arange(len(rows)), own[rows]][:, None]).sum(axis=1)
    return ranks
