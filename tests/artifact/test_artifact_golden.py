"""Artifacts written by the first version must load for ever. Oracle: checksums noted when they were written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from artifact_samples import make_elastic, make_ranges, make_tensors
from make_golden import golden_configs, write_golden

from bitpress.artifact import read_artifact, verify

GOLDEN = Path(__file__).parents[1] / "data" / "artifact-v1"
# SHA-256 of every tensor's decoded fp32 values, of every range and every elastic number, in order of their names. Never
# change one.
CHECKSUMS = {
    "2bit": "58f9f29de954f3bc1d1d74f5b434b4f192713e894ff547c2247043eab1e66d1e",
    "binarybert": "e4112265473f9c78d58394f4a336c48a87502ee2a1a4e922ca866c654fb5aaee",
    "binary": "c09d2189e94f3ecaf13cd668eeb36380a1db6b8d5e5a8e0cf358b1d61bc61a43",
    "elastic": "f36d8e58395f1c2ee1e2944a98267bd2d5d2674469c12771f03d90cc35d8add7",
    "embedding": "d1c2fe0332470756f3d2a740c5435e85ffd6e3987cd583ed37fa359c58973e06",
    "gobo": "9ebbfdaaa92190e8dc5938911b7d91e674415ec4a4f2f9cafb607f4bdd286917",
    "mixed": "afca12095be1a1f8ae35bc9d2c574444bba8c50ef64e1d518fee60ad26493abf",
    "spans": "e4466e4602c0e00e205d384f1cfc4fc3f83158fb721282d76ed0644e5c64c917",
    "tokens": "7da53cbec32190e0366b497ff0236f2e8793984044fb4129e629483cc59caae2",
    "trits": "a28b6a0a37d90dd08c5cd0c6f164cc9a42efc4f2d4f8c5cc31a6a7cefafda6b5",
}


def checksum(path: Path) -> str:
    artifact = read_artifact(path)
    digest = hashlib.sha256()
    for name in sorted(artifact.config.tensors):
        digest.update(name.encode() + artifact.dense(name).astype("<f4").tobytes())
    for name in sorted(artifact.ranges):
        digest.update(name.encode() + np.array(artifact.ranges[name], "<f4").tobytes())
    for name in sorted(artifact.elastic):
        digest.update(name.encode() + artifact.elastic[name].astype("<f4").tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("golden", sorted(CHECKSUMS))
def test_golden_artifact_still_decodes_to_the_same_values(golden: str) -> None:
    assert checksum(GOLDEN / golden) == CHECKSUMS[golden]
    assert verify(GOLDEN / golden)["ok"]


@pytest.mark.parametrize("golden", sorted(CHECKSUMS))
def test_golden_artifact_holds_what_was_put_in(golden: str) -> None:
    """Independent of the checksum: the arrays that the script handed to the writer."""
    config = golden_configs()[golden]
    artifact = read_artifact(GOLDEN / golden)
    assert artifact.config == config
    assert artifact.ranges == make_ranges(config)
    elastic = make_elastic(config)
    assert artifact.elastic.keys() == elastic.keys()
    for name, number in elastic.items():
        np.testing.assert_array_equal(artifact.elastic[name], number)
    for name, value in make_tensors(config).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(artifact.dense(name), value)
        else:
            np.testing.assert_array_equal(artifact.quantized(name).codes, value.codes)
            np.testing.assert_array_equal(artifact.dense(name), value.decode())


def test_writer_still_writes_the_same_bytes(tmp_path: Path) -> None:
    write_golden(tmp_path)
    for golden in CHECKSUMS:
        for file in ("config.json", "model.safetensors"):
            assert (tmp_path / golden / file).read_bytes() == (GOLDEN / golden / file).read_bytes()
