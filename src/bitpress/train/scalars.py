"""Scalars as JSON lines, one flat file a run, in step with the checkpoints.

A line of training:   {"stage", "step", "epoch", "loss", "components", "lr", "tokens_per_second", "time"}
A line of evaluation: {"stage", "step", "metric", "metrics", "best_metric", "best_step", "time"}, and "probes" where
the stage has such (recipes/probes.py); at step 0 they stand alone

``loss`` and ``components`` are means over the steps since the line before; ``time`` is Unix seconds; NaN is null.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any


class ScalarLog:
    """An append-only JSONL file that can be cut back to an earlier position."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = open(path, "ab")  # noqa: SIM115  (open for as long as the stage; close() below)

    def write(self, record: dict[str, Any]) -> None:
        """Appends one line and hands it to the operating system."""
        self._handle.write((json.dumps(_finite(record)) + "\n").encode())
        self._handle.flush()

    def position(self) -> int:
        """Bytes so far, all of them on disk when this returns."""
        self._handle.flush()
        os.fsync(self._handle.fileno())
        return os.fstat(self._handle.fileno()).st_size

    def truncate(self, position: int) -> None:
        """Drops everything after ``position``; a file that is shorter already (someone removed it) stays as it is."""
        self._handle.flush()
        if os.fstat(self._handle.fileno()).st_size > position:
            self._handle.truncate(position)

    def close(self) -> None:
        self._handle.close()


class NoScalars:
    """Of a process that does not write."""

    def write(self, record: dict[str, Any]) -> None:
        """Nothing."""

    def position(self) -> int:
        """0."""
        return 0

    def truncate(self, position: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
