"""Labelled text: tasks, file readers, metrics and the bundled sentiment set. numpy and the standard library only."""

from __future__ import annotations

from bitpress.data import bundled
from bitpress.data.dataset import Dataset
from bitpress.data.metrics import compute_metrics, majority_baseline
from bitpress.data.readers import SOURCE_ROW, VARIANT, iter_texts, read_dataset
from bitpress.data.scores import headline, score, summarize
from bitpress.data.tasks import (
    EMBEDDING,
    MULTILABEL,
    QUESTION_ANSWERING,
    TASK_NAMES,
    TOKEN_CLASSIFICATION,
    Task,
    get_task,
)

__all__ = [
    "EMBEDDING",
    "MULTILABEL",
    "QUESTION_ANSWERING",
    "SOURCE_ROW",
    "TASK_NAMES",
    "TOKEN_CLASSIFICATION",
    "VARIANT",
    "Dataset",
    "Task",
    "bundled",
    "compute_metrics",
    "get_task",
    "headline",
    "iter_texts",
    "majority_baseline",
    "read_dataset",
    "score",
    "summarize",
]
