"""Training any ``nn.Module`` with a loss function: schedules, length-bucketed batches, exact checkpoints, the loop.

The package is generic: it knows neither encoders nor quantizers. A recipe brings a model, a loss and an evaluation and
calls :func:`run_stage` once a stage.
"""

from __future__ import annotations

from bitpress.train.batching import UNLABELLED, Batch, EncodedDataset, collate, make_batches
from bitpress.train.processes import Processes
from bitpress.train.progress import ProgressEvent
from bitpress.train.running_stage import StageResult
from bitpress.train.schedule import Schedule
from bitpress.train.stage import run_stage

__all__ = [
    "UNLABELLED",
    "Batch",
    "EncodedDataset",
    "Processes",
    "ProgressEvent",
    "Schedule",
    "StageResult",
    "collate",
    "make_batches",
    "run_stage",
]
