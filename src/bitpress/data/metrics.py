"""Task metrics in plain numpy (float64): accuracy, F1, Matthews, Pearson, Spearman.

Every value is a fraction in 0..1 or a correlation in -1..1, never a percentage and never NaN: where a formula is 0/0
(one class only, constant predictions) the value is 0, as scikit-learn has it for F1 and Matthews.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitpress.data.tasks import Task

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def confusion_matrix(predictions: Ints, labels: Ints, num_classes: int) -> Ints:
    """Counts [C, C]: row = true class, column = predicted class."""
    flat = np.bincount(labels * num_classes + predictions, minlength=num_classes * num_classes)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def accuracy(predictions: Ints, labels: Ints) -> float:
    """Share of predictions [N] that equal labels [N]."""
    return float(np.mean(predictions == labels))


def f1(predictions: Ints, labels: Ints) -> float:
    """F1 of class 1 against the rest: 2·TP / (2·TP + FP + FN)."""
    return float(_f1_by_class(confusion_matrix(predictions, labels, _num_classes(predictions, labels)))[1])


def macro_f1(predictions: Ints, labels: Ints) -> float:
    """Mean F1 over the classes that occur among predictions or labels."""
    counts = confusion_matrix(predictions, labels, _num_classes(predictions, labels))
    occurs = (counts.sum(axis=0) + counts.sum(axis=1)) > 0
    return float(_f1_by_class(counts)[occurs].mean())


def matthews(predictions: Ints, labels: Ints) -> float:
    """Matthews correlation for any number of classes (Gorodkin 2004, R_K)."""
    counts = confusion_matrix(predictions, labels, _num_classes(predictions, labels)).astype(np.float64)
    true, predicted, n = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
    covariance = np.trace(counts) * n - true @ predicted
    variance = (n * n - predicted @ predicted) * (n * n - true @ true)
    return float(covariance / np.sqrt(variance)) if variance > 0 else 0.0


def pearson(x: Floats, y: Floats) -> float:
    """Pearson correlation of x [N] and y [N]; 0 where either is constant."""
    # All-equal is asked of the values themselves: their mean may round, leaving a tiny false variance.
    if len(x) < 2 or np.all(x == x[0]) or np.all(y == y[0]):
        return 0.0
    dx, dy = x - x.mean(), y - y.mean()
    if not (dx.any() and dy.any()):
        return 0.0
    # Scaled to at most 1 before squaring: squares of tiny or huge values would underflow or overflow.
    dx, dy = dx / np.abs(dx).max(), dy / np.abs(dy).max()
    return float(np.clip(dx @ dy / (np.linalg.norm(dx) * np.linalg.norm(dy)), -1.0, 1.0))


def spearman(x: Floats, y: Floats) -> float:
    """Spearman correlation: Pearson over ranks, ties sharing their average rank; 0 where either is constant."""
    return pearson(average_ranks(x), average_ranks(y))


def average_ranks(x: Floats) -> Floats:
    """Ranks 1..N of x [N]; equal values get the mean of the ranks they span."""
    _, group, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((2 * last - counts + 1) / 2.0)[group]


_METRICS: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def metric_name(name: str, num_classes: int) -> str:
    """The key under which ``compute_metrics`` reports a metric: ``f1`` is ``macro_f1`` beyond two classes."""
    return "macro_f1" if name == "f1" and num_classes > 2 else name


def compute_metrics(task: Task, logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    """All metrics of ``task``, its headline metric first.

    ``logits`` is [N, C] for classification (the prediction is the first maximum) and [N] or [N, 1] for regression;
    ``labels`` [N] are class indices or float targets. Raises ValueError for shapes that do not fit, no rows, a class
    index outside 0..C-1, or a logit that is not finite.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if task.kind == "regression" and logits.ndim == 2 and logits.shape[1] == 1:
        logits = logits[:, 0]
    wanted = 1 if task.kind == "regression" else 2
    if logits.ndim != wanted or labels.ndim != 1 or len(labels) != len(logits):
        raise ValueError(f"{task.kind} cannot score outputs of shape {logits.shape} on labels of shape {labels.shape}")
    if len(labels) == 0:
        raise ValueError("metrics need at least one row")
    if not np.isfinite(logits).all():
        raise ValueError("the model's outputs contain NaN or infinity")
    names = (task.metric, *(name for name in task.metrics if name != task.metric))
    if task.kind == "regression":
        scores, targets = logits.astype(np.float64), labels.astype(np.float64)
        return {name: _METRICS[name](scores, targets) for name in names}
    num_classes = logits.shape[1]
    predictions, truth = logits.argmax(axis=1).astype(np.int64), labels.astype(np.int64)
    if truth.min() < 0 or truth.max() >= num_classes:
        raise ValueError(f"labels {truth.min()}..{truth.max()} do not fit {num_classes} classes")
    keys = [metric_name(name, num_classes) for name in names]
    return {key: _METRICS[key](predictions, truth) for key in keys}


def majority_baseline(task: Task, labels: NDArray[Any], num_classes: int = 2) -> float:
    """The headline metric of a model that always answers with the most frequent class of ``labels`` [N].

    0 for Matthews and the correlations, where a constant answer says nothing.
    """
    if task.kind == "regression" or len(labels) == 0:
        return 0.0
    truth = np.asarray(labels).astype(np.int64)
    constant = np.full_like(truth, np.bincount(truth).argmax())
    return _METRICS[metric_name(task.metric, max(num_classes, int(truth.max()) + 1))](constant, truth)


def _num_classes(predictions: Ints, labels: Ints) -> int:
    """Classes 0..max that occur, at least two so that class 1 exists."""
    return max(2, int(predictions.max()) + 1, int(labels.max()) + 1)


def _f1_by_class(counts: Ints) -> Floats:
    """F1 [C] from a confusion matrix; 0 where a class is neither present nor predicted."""
    twice_hits = 2.0 * np.diag(counts)
    total = counts.sum(axis=0) + counts.sum(axis=1)
    return np.divide(twice_hits, total, out=np.zeros(len(counts)), where=total > 0)
