"""Load time and peak memory of a fresh process that loads a model and runs one text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from bitpress.bench.client import PROGRAM, Worker
from bitpress.bench.latency import available_threads

_TEXT = "A short sentence to run once."


def measure_process(
    path: str | Path,
    *,
    threads: int | None = None,
    text: str = _TEXT,
    runs: int = 3,
    program: Sequence[str] = PROGRAM,
) -> dict[str, float]:
    """Loads the model directory ``path`` in ``runs`` fresh processes, one after another.

    The first process also reads the files from disk; the median over three therefore is that of a warm file cache.

    Args:
        threads: of the engine; None means all that the process may use.
        text: what is run once, so that memory which is taken at the first pass is counted.
        program: the worker program, for a model that another engine runs.

    Returns:
        Medians: ``load_ms`` (imports, tokenizer, model; without the start of Python), ``first_ms`` (the first text) and
        ``peak_bytes`` (VmHWM: interpreter, libraries, weights and activations together).

    Raises:
        BitpressError: the model does not load.
    """
    threads = available_threads() if threads is None else threads
    found = []
    for _ in range(runs):
        with Worker(path, threads=threads, once=text, program=program) as worker:
            found.append(worker.receive())
    return {key: statistics.median(run[key] for run in found) for key in ("load_ms", "first_ms", "peak_bytes")}
