"""Our own safetensors code. Oracle: the safetensors package, in both directions, byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from artifact_samples import make_binarybert_config, make_config, make_mixed_config, write_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import load_file, save

from bitpress.artifact import ActivationSpec, ArtifactConfig, read_artifact
from bitpress.artifact.container import parse_header, serialize

SHAPES = array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=5)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
TENSORS = st.dictionaries(
    NAMES.filter(lambda name: name != "__metadata__"),
    st.one_of(
        arrays(np.uint8, SHAPES),
        arrays(np.int8, SHAPES),
        arrays(np.float16, SHAPES, elements=st.floats(-1, 1, width=16)),
        arrays(np.float32, SHAPES, elements=st.floats(-1, 1, width=32)),
    ),
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(TENSORS)
def test_written_bytes_are_those_of_the_safetensors_package(tensors: dict[str, np.ndarray]) -> None:
    assert b"".join(serialize(tensors)) == save(tensors)


@settings(max_examples=200, deadline=None)
@given(TENSORS)
def test_header_of_the_safetensors_package_is_read(tensors: dict[str, np.ndarray]) -> None:
    content = save(tensors)
    entries = parse_header(content, len(content), "file")
    assert entries.keys() == tensors.keys()
    for name, entry in entries.items():
        dtype = {"uint8": "U8", "int8": "I8", "float16": "F16", "float32": "F32"}[tensors[name].dtype.name]
        assert (entry.dtype, entry.shape) == (dtype, tensors[name].shape)
        assert content[entry.begin : entry.end] == tensors[name].tobytes()


@pytest.mark.parametrize(
    "config",
    [make_config("trits", activations=ActivationSpec(range="static")), make_mixed_config(), make_binarybert_config()],
    ids=["trits", "mixed", "binarybert"],
)
def test_artifact_opens_in_the_safetensors_package(tmp_path: Path, config: ArtifactConfig) -> None:
    write_sample(tmp_path / "model", config)
    theirs = load_file(tmp_path / "model" / "model.safetensors")
    ours = read_artifact(tmp_path / "model").tensors
    assert theirs.keys() == ours.keys()
    for name, array in theirs.items():
        assert array.dtype == ours[name].dtype
        np.testing.assert_array_equal(array, ours[name])
