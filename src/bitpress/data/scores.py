"""A model's outputs on a dataset to its scores, whatever the kind of task."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitpress.data.dataset import Dataset
from bitpress.data.entity_metrics import entity_metrics
from bitpress.data.label_set_metrics import label_set_metrics, most_frequent_label, sigmoid
from bitpress.data.metrics import compute_metrics, majority_baseline, metric_name
from bitpress.data.pair_metrics import pair_metrics
from bitpress.data.squad_metrics import Answers, squad_metrics
from bitpress.data.tag_schemes import OUTSIDE
from bitpress.data.tasks import EMBEDDING, MULTILABEL, TOKEN_CLASSIFICATION, Task


def headline(task: Task, dataset: Dataset, num_labels: int) -> str:
    """The key of the metric that selects and is reported: of embedding, pairs without scores are retrieved."""
    if task.kind == EMBEDDING:
        return task.metric if dataset.labels is not None else "mrr"
    return metric_name(task.metric, num_labels) if task.kind in ("classification", "regression") else task.metric


def score(task: Task, logits: NDArray[Any] | Answers, dataset: Dataset) -> dict[str, float]:
    """All metrics of ``task`` on ``dataset``, its headline metric first.

    Args:
        logits: as many rows as ``dataset.labels``: [N, C], or of token classification [W, C], where a row of NaN
            stands for a word that the model did not see (:func:`word_logits`): it counts as O. Of embedding the vectors
            [2N, d] of the two texts of each pair, one after the other. Of question answering what was found, in place
            of logits.

    Raises:
        ValueError: see :func:`compute_metrics`.
    """
    if isinstance(logits, Answers):
        assert dataset.answers is not None, "questions come with their answers"
        return squad_metrics(logits, dataset.answers)
    if task.kind == EMBEDDING:
        return pair_metrics(logits, dataset.labels, dataset.pairs)
    assert dataset.labels is not None, "only labelled data is scored"
    if task.kind == MULTILABEL:
        return _label_set_scores(logits, dataset.labels, dataset, task.threshold)
    if task.kind == TOKEN_CLASSIFICATION:
        return _entity_scores(logits, dataset.labels, dataset)
    return compute_metrics(task, logits, dataset.labels)


def _label_set_scores(
    logits: NDArray[Any], labels: NDArray[Any], dataset: Dataset, threshold: float
) -> dict[str, float]:
    if not np.isfinite(logits).all():
        raise ValueError("the model's outputs contain NaN or infinity")
    return label_set_metrics(sigmoid(logits) >= threshold, labels > 0, dataset.label_names)


def _entity_scores(logits: NDArray[Any], labels: NDArray[Any], dataset: Dataset) -> dict[str, float]:
    if logits.shape != (len(labels), len(dataset.label_names)):
        raise ValueError(f"cannot score outputs of shape {logits.shape} on {len(labels)} words")
    unseen = np.isnan(logits).any(axis=1)
    outside = dataset.label_names.index(OUTSIDE)
    predicted = np.where(unseen, outside, logits.argmax(axis=1))
    return entity_metrics(predicted, labels, dataset.word_counts, dataset.label_names)


def word_logits(logits: NDArray[Any], words: NDArray[Any], lengths: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
    """The logits of each word's first token, [W, C]; NaN where a word has none, being cut off with the end of a long
    text or made of characters that the tokenizer drops.

    Args:
        logits: [tokens, C] of all texts, one after another.
        words: int [tokens]: of a token that begins a word the word's number in its text, -1 of others.
        lengths, counts: tokens and words of each text, int64 [N].

    Raises:
        ValueError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise ValueError("the model's outputs contain NaN or infinity")
    begins = words >= 0
    first_word = np.repeat(np.cumsum(counts) - counts, lengths)
    found = np.full((int(counts.sum()), logits.shape[1]), np.nan, logits.dtype)
    found[(first_word + words)[begins]] = logits[begins]
    return found


def summarize(task: Task, metrics: dict[str, float], dataset: Dataset, num_labels: int) -> dict[str, Any]:
    """``metric`` (its name), ``value``, ``n`` (texts), ``metrics`` and ``majority``, the value of always giving one
    answer: the most frequent class or label, no entity at all, or that there is no answer; 0 of vectors that are all
    the same.

    Args:
        metrics: of :func:`score`.
        num_labels: columns of the logits that they are of.
    """
    metric = headline(task, dataset, num_labels)
    majority = _majority(task, metric, dataset, num_labels)
    return {"metric": metric, "value": metrics[metric], "n": len(dataset), "metrics": metrics, "majority": majority}


def _majority(task: Task, metric: str, dataset: Dataset, num_labels: int) -> float:
    if task.kind in (EMBEDDING, TOKEN_CLASSIFICATION):
        return 0.0
    if dataset.answers is not None:
        return sum(not texts for texts in dataset.answers) / len(dataset)
    assert dataset.labels is not None, "only labelled data is scored"
    if task.kind == MULTILABEL:
        truth = dataset.labels > 0
        return label_set_metrics(most_frequent_label(truth), truth, dataset.label_names)[metric]
    return majority_baseline(task, dataset.labels, num_labels)
