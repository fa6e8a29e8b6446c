"""A valid artifact to break."""

from __future__ import annotations

from pathlib import Path

import pytest
from artifact_samples import write_sample


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    write_sample(tmp_path / "model")
    return tmp_path / "model"
