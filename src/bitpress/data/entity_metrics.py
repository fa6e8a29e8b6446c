"""Precision, recall and F1 of entities, as the CoNLL-2000 shared task's conlleval counts them (Tjong Kim Sang and
Buchholz 2000): an entity is found where its label and both ends are right. Equal to ``seqeval`` in its default mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitpress.data.tag_schemes import entities

Ints = NDArray[np.int64]


def entity_metrics(predicted: Ints, truth: Ints, lengths: Ints, names: Sequence[str]) -> dict[str, float]:
    """``entity_f1``, ``entity_precision``, ``entity_recall`` over all entities, then ``f1/LABEL``, ``precision/LABEL``
    and ``recall/LABEL`` of each label that occurs; fractions, 0 where there is nothing to divide by.

    Args:
        predicted, truth: indices into ``names`` of all words' tags, int64 [W], one sentence after another.
        lengths: words of each sentence, int64 [N].
        names: tags (:mod:`bitpress.data.tag_schemes`).
    """
    right, found, wanted = Counter[str](), Counter[str](), Counter[str]()
    ends = np.cumsum(lengths).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        ours = set(entities([names[i] for i in predicted[start:end]]))
        theirs = set(entities([names[i] for i in truth[start:end]]))
        found.update(entity.label for entity in ours)
        wanted.update(entity.label for entity in theirs)
        right.update(entity.label for entity in ours & theirs)
    f1, precision, recall = _scores(right.total(), found.total(), wanted.total())
    metrics = {"entity_f1": f1, "entity_precision": precision, "entity_recall": recall}
    for label in sorted(found | wanted):
        values = _scores(right[label], found[label], wanted[label])
        metrics |= {f"{name}/{label}": value for name, value in zip(("f1", "precision", "recall"), values, strict=True)}
    return metrics


def _scores(right: int, found: int, wanted: int) -> tuple[float, float, float]:
    """F1, precision and recall."""
    precision, recall = right / found if found else 0.0, right / wanted if wanted else 0.0
    return (2 * right / (found + wanted) if right else 0.0), precision, recall
