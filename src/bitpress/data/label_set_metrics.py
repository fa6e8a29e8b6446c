"""Scores of texts that have any number of labels (numpy, float64); 0/0 is 0, as in scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probability of each label, in float64."""
    x = np.asarray(logits, np.float64)
    # Of a negative argument only, so that nothing overflows.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def label_set_metrics(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], label_names: Sequence[str]
) -> dict[str, float]:
    """``micro_f1`` over all texts and labels, ``macro_f1``, the mean over labels, ``micro_precision``,
    ``micro_recall``, ``exact``, the share of texts with all labels right, and ``f1/NAME`` of each label.

    Args:
        predicted, truth: [N, C].

    Raises:
        ValueError: the shapes differ, or there is no row.
    """
    if predicted.shape != truth.shape or truth.ndim != 2 or len(truth) == 0:
        raise ValueError(f"cannot score predictions of shape {predicted.shape} on labels of shape {truth.shape}")
    hits, found, there = (predicted & truth).sum(axis=0), predicted.sum(axis=0), truth.sum(axis=0)
    of_labels = [_ratio(2 * h, f + t) for h, f, t in zip(hits, found, there, strict=True)]
    return {
        "micro_f1": _ratio(2 * hits.sum(), found.sum() + there.sum()),
        "macro_f1": float(np.mean(of_labels)),
        "micro_precision": _ratio(hits.sum(), found.sum()),
        "micro_recall": _ratio(hits.sum(), there.sum()),
        "exact": float((predicted == truth).all(axis=1).mean()),
        **{f"f1/{name}": value for name, value in zip(label_names, of_labels, strict=True)},
    }


def most_frequent_label(truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[N, C]: the prediction that every text has the most frequent label alone."""
    constant = np.zeros_like(truth)
    constant[:, truth.sum(axis=0).argmax()] = True
    return constant


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0
