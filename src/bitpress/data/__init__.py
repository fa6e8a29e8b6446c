"""Labelled text: tasks, file readers, metrics and the bundled sentiment set. numpy and the standard library only."""

from __future__ import annotations

from bitpress.data import bundled
from bitpress.data.metrics import compute_metrics, majority_baseline
from bitpress.data.readers import SOURCE_ROW, VARIANT, Dataset, iter_texts, read_dataset
from bitpress.data.tasks import TASK_NAMES, Task, get_task

__all__ = [
    "SOURCE_ROW",
    "TASK_NAMES",
    "VARIANT",
    "Dataset",
    "Task",
    "bundled",
    "compute_metrics",
    "get_task",
    "iter_texts",
    "majority_baseline",
    "read_dataset",
]
