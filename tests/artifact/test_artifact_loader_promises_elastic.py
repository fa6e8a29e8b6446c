"""What the reader promises about numbers of elastic activations that lie: one test a lie, named after it.

Oracle: the format as docs/artifact.md states it; each test breaks one sentence of it in a valid artifact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_samples import (
    edit_config,
    edit_entry,
    edit_header,
    make_binary_config,
    make_elastic,
    quantization,
    refused,
    write_sample,
)

from bitpress.artifact import read_artifact

SCALES = ["layers.0.attention.query.input.scale", "layers.1.attention.probabilities.scale", "pooler.dense.input.scale"]
SHIFTS = ["layers.1.attention.output.input.shift", "layers.0.ffn.output.input.shift", "pooler.dense.input.shift"]


@pytest.fixture
def elastic(tmp_path: Path) -> Path:
    write_sample(tmp_path / "elastic", make_binary_config("softmax"))
    return tmp_path / "elastic"


def set_last(path: Path, entry: str, value: float) -> None:
    edit_entry(path, entry, lambda a: a.__setitem__(-1, value))


def test_elastic_numbers_are_read(elastic: Path) -> None:
    """2 for each of the 6 linear layers and 4 for attention in each of 2 layers, 2 for the pooler."""
    read, expected = read_artifact(elastic).elastic, make_elastic(make_binary_config("softmax"))
    assert read.keys() == expected.keys()
    assert len(read) == 2 * (6 * 2 + 4) + 2
    for name, number in expected.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], number)


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "silu", ...])
def test_elastic_activations_without_relu(elastic: Path, act: Any) -> None:
    edit_config(elastic, lambda d: d.pop("hidden_act") if act is ... else d.update(hidden_act=act))
    refused(
        elastic, f"attention is 'softmax' with hidden_act '{'gelu' if act is ... else act}'; elastic bits need relu"
    )


def test_elastic_number_missing(elastic: Path) -> None:
    """The bytes are those of an artifact of signs, of which only config.json says otherwise."""
    write_sample(elastic, make_binary_config("bool"))
    edit_config(elastic, lambda d: quantization(d)["activations"].update(attention="softmax"))
    edit_config(elastic, lambda d: d.update(hidden_act="relu"))
    error = refused(elastic, r"is missing from model.safetensors; F32 \[1\] is expected")
    assert error.tensor == "layers.0.attention.query.input.scale"


@pytest.mark.parametrize("attention", ["bool", "all"])
def test_elastic_number_where_activations_are_not(elastic: Path, attention: str) -> None:
    edit_config(elastic, lambda d: quantization(d)["activations"].update(attention=attention))
    edit_config(elastic, lambda d: d.update(hidden_act="gelu"))
    refused(elastic, "stands in model.safetensors but the config has no such tensor")


def test_elastic_shift_of_another_width(elastic: Path) -> None:
    """The FFN's output reads 37 columns, the others 22."""
    name = "layers.0.ffn.output.input.shift"
    edit_header(elastic, lambda h: h[name].update(shape=[1, 37]))
    assert refused(elastic, r"is F32 \[1, 37\] in model.safetensors; the config gives F32 \[37\]").tensor == name


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0])
@pytest.mark.parametrize("name", SCALES)
def test_elastic_scale_not_finite_and_positive(elastic: Path, name: str, value: float) -> None:
    set_last(elastic, name, value)
    assert refused(elastic, f"is {value}; scales must be finite and above 0").tensor == name


@pytest.mark.parametrize("name", SCALES)
def test_elastic_scale_too_large(elastic: Path, name: str) -> None:
    set_last(elastic, name, 2.0**32)
    read_artifact(elastic)
    set_last(elastic, name, 2.0**32 + 2.0**9)
    assert refused(elastic, r"is 4294967\d+\.0; elastic scales are at most 2\^32").tensor == name


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", SHIFTS)
def test_elastic_shift_not_finite(elastic: Path, name: str, value: float) -> None:
    set_last(elastic, name, value)
    assert refused(elastic, f"is {value}; only finite numbers are allowed").tensor == name


@pytest.mark.parametrize("weight", ["layers.0.ffn.output.weight", "pooler.dense.weight"])
def test_elastic_products_would_leave_fp32(elastic: Path, weight: str) -> None:
    name = weight.replace(".weight", ".input.scale")
    set_last(elastic, f"{weight}.scale", 2.0**101)
    set_last(elastic, name, 2.0**10)
    read_artifact(elastic)
    set_last(elastic, name, 2.0**10 + 2.0**-10)
    error = refused(elastic, r"so that dot products would leave fp32; their product may be 2\^111 at most")
    assert error.tensor == name
