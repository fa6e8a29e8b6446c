"""Load time and peak memory of fresh processes. Oracle: bounds that hold whatever the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bitpress.bench.memory import measure_process
from bitpress.bench.models import weight_bytes
from bitpress.errors import BitpressError


def test_peak_is_that_of_the_process_and_stays_when_memory_is_freed() -> None:
    # In a process of its own, because the peak of this one is past whatever a small block could add.
    code = (
        "from bitpress.bench.worker import peak_resident_bytes as peak\n"
        "before = peak(); block = bytearray(b'x' * (64 << 20)); del block; print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The block replaces nothing that was resident but may reuse some pages of it.
    assert 60 << 20 < int(done.stdout) < 200 << 20


def test_artifact_needs_less_than_torch(artifact: Path, checkpoint: Path) -> None:
    ours, theirs = (measure_process(path, threads=1, text="- a good film", runs=1) for path in (artifact, checkpoint))
    for found in (ours, theirs):
        assert found.keys() == {"load_ms", "first_ms", "peak_bytes"}
        assert min(found.values()) > 0
    # Importing torch alone takes over 100 MiB; numpy and tokenizers stay below it.
    assert theirs["peak_bytes"] - ours["peak_bytes"] > 64 << 20
    assert ours["load_ms"] < theirs["load_ms"]


def test_weights_on_disk(tmp_path: Path) -> None:
    with pytest.raises(BitpressError, match=r"expected model.safetensors or pytorch_model.bin"):
        weight_bytes(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"12345")
    assert weight_bytes(tmp_path) == 5
    (tmp_path / "model.safetensors").write_bytes(b"123")
    assert weight_bytes(tmp_path) == 3
