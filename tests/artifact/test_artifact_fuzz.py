"""Damage anywhere: read_artifact raises ArtifactError or returns an artifact whose every value can be used.

Oracle: the type of the exception; and, where it loads, finite values of the shapes that the config gives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from artifact_samples import make_binary_config, make_binarybert_config, make_config, make_mixed_config, write_sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitpress.artifact import ActivationSpec, ArtifactError, describe, read_artifact, verify

FILES = ["config.json", "model.safetensors"]
SETTINGS = settings(max_examples=150, deadline=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])


STATIC = ActivationSpec(range="static")


@pytest.fixture(
    scope="module",
    params=[
        make_config("trits", "row", STATIC),
        make_mixed_config(STATIC),
        make_binary_config("softmax"),
        make_binarybert_config(),
    ],
    ids=["trits", "mixed", "elastic", "binarybert"],
)
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "model"
    write_sample(path, request.param)
    return path


def survives(artifact: Path, file: str, damage: Callable[[bytes], bytes]) -> None:
    intact = (artifact / file).read_bytes()
    (artifact / file).write_bytes(damage(intact))
    try:
        for use in (describe, verify, use_everything):
            message = refusal(use, artifact)
            assert message is None or 0 < len(message) < 2000
    finally:
        (artifact / file).write_bytes(intact)


def refusal(use: Callable[[Path], object], path: Path) -> str | None:
    try:
        use(path)
    except ArtifactError as error:  # any other exception fails the test
        return str(error)
    return None


def use_everything(path: Path) -> None:
    artifact = read_artifact(path)
    config = artifact.config
    for name, spec in config.tensors.items():
        dense = artifact.dense(name)
        assert dense.shape == spec.shape
        assert np.isfinite(dense).all()
    assert len(config.labels) == config.num_labels == config.tensors["classifier.weight"].shape[0]
    assert 2 <= config.max_length <= config.max_position_embeddings
    assert config.layer_norm_eps > 0
    assert all(scale > 0 and np.isfinite(offset) for scale, offset in artifact.ranges.values())
    assert all(np.isfinite(number).all() for number in artifact.elastic.values())


@pytest.mark.parametrize("file", FILES)
@SETTINGS
@given(data=st.data())
def test_flipped_bytes(artifact: Path, file: str, data: st.DataObject) -> None:
    size = (artifact / file).stat().st_size
    # Half of the flips fall on the header of model.safetensors, which is a tenth of the file.
    places = st.one_of(st.integers(0, min(size, 4096) - 1), st.integers(0, size - 1))
    flips = data.draw(st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=4))

    def damage(content: bytes) -> bytes:
        result = bytearray(content)
        for at, mask in flips:
            result[at] ^= mask
        return bytes(result)

    survives(artifact, file, damage)


@pytest.mark.parametrize("file", FILES)
@SETTINGS
@given(data=st.data())
def test_truncated_anywhere(artifact: Path, file: str, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, (artifact / file).stat().st_size - 1))
    survives(artifact, file, lambda content: content[:size])
    if file == "model.safetensors":  # no proper prefix is a container; config.json may lose its last newline
        intact = (artifact / file).read_bytes()
        (artifact / file).write_bytes(intact[:size])
        try:
            with pytest.raises(ArtifactError):
                read_artifact(artifact)
        finally:
            (artifact / file).write_bytes(intact)


@pytest.mark.parametrize("file", FILES)
@SETTINGS
@given(extra=st.binary(min_size=1, max_size=64))
def test_extended(artifact: Path, file: str, extra: bytes) -> None:
    survives(artifact, file, lambda content: content + extra)


@pytest.mark.parametrize("file", FILES)
@SETTINGS
@given(data=st.data())
def test_inserted_and_removed_pieces(artifact: Path, file: str, data: st.DataObject) -> None:
    size = (artifact / file).stat().st_size
    at = data.draw(st.integers(0, size))
    removed = data.draw(st.integers(0, 8))
    piece = data.draw(
        st.one_of(st.binary(max_size=8), st.sampled_from([b"{", b'"', b"[", b"NaN", b"-1", b"1e9", b"null"]))
    )
    survives(artifact, file, lambda content: content[:at] + piece + content[at + removed :])
