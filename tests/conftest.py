"""With ``pytest -n`` every process computes on one thread: torch's threads wait for each other by spinning, and several
processes that take all cores each keep them from working."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
