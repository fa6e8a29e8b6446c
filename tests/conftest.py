"""How the tests share a machine when ``pytest -n`` runs them in several processes."""

from __future__ import annotations

import os

import pytest

# torch's threads wait for each other by spinning, so several processes that take all cores each keep all from working.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Files that train for minutes. Begun last, one of them would keep a single process busy at the end.
LONGEST = ("test_contract.py", "test_compress.py", "test_pretrain.py")


def pytest_configure(config: pytest.Config) -> None:
    """Files in the order below, where xdist would begin with those that have the most tests."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
