"""What the reader promises about uniform, codebook, binary and fp16 tensors that lie: one test a lie, named after it.

Oracle: the format as docs/artifact.md states it; each test breaks one sentence of it in a valid artifact.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_samples import (
    QUERY,
    edit_config,
    edit_entry,
    join_container,
    make_binary_config,
    make_binarybert_config,
    make_config,
    make_mixed_config,
    make_tensors,
    quantization,
    refused,
    split_container,
    write_sample,
)

from bitpress.artifact import ActivationSpec, ArtifactConfig, TensorSpec, UniformTensor, pack_bits, read_artifact

UNIFORM = {"scheme": "uniform", "bits": 4, "symmetric": True, "group": "row", "group_size": None, "shape": [22, 22]}
CODEBOOK = {"scheme": "codebook", "bits": 4, "group": "row", "shape": [22, 22]}
BINARY = {"scheme": "binary", "bits": 1, "group": "row", "scale_bits": 32, "terms": 1, "shape": [22, 22]}
TERNARY = {"scheme": "ternary", "bits": 2, "packing": "2bit", "group": "matrix", "shape": [22, 22]}

FP32 = ActivationSpec("fp32", 32)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    write_sample(tmp_path / "mixed", make_mixed_config())
    return tmp_path / "mixed"


@pytest.fixture
def two_terms(tmp_path: Path) -> Path:
    write_sample(tmp_path / "two_terms", make_binarybert_config())
    return tmp_path / "two_terms"


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    write_sample(tmp_path / "binary", make_binary_config())
    return tmp_path / "binary"


def respecify(path: Path, name: str, **keys: Any) -> None:
    """Change the entry of ``name`` in config.json."""
    edit_config(path, lambda d: quantization(d)["tensors"][name].update(keys))


# ---- config.json -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [TERNARY, UNIFORM, CODEBOOK, BINARY])
@pytest.mark.parametrize(("name", "shape"), [("classifier.weight", [3, 22]), ("embeddings.token_type.weight", [2, 22])])
def test_codes_where_only_floats_are_allowed(
    artifact: Path, entry: dict[str, Any], name: str, shape: list[int]
) -> None:
    edit_config(artifact, lambda d: quantization(d)["tensors"].update({name: entry | {"shape": shape}}))
    error = refused(artifact, f"scheme is '{entry['scheme']}'; this tensor is fp32 or fp16 in every artifact")
    assert error.tensor == name


@pytest.mark.parametrize("entry", [TERNARY, CODEBOOK, BINARY])
def test_codes_of_positions_that_are_not_uniform(artifact: Path, entry: dict[str, Any]) -> None:
    name = "embeddings.position.weight"
    edit_config(artifact, lambda d: quantization(d)["tensors"].update({name: entry | {"shape": [33, 22]}}))
    assert refused(artifact, f"scheme is '{entry['scheme']}'; this tensor is fp32, fp16 or uniform").tensor == name


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        (UNIFORM | {"bits": 5}, "bits is 5; uniform has 2, 3, 4, 8"),
        (UNIFORM | {"bits": True}, "bits is True"),
        (UNIFORM | {"group": "column"}, "group is 'column'; allowed are matrix, row, row_block, input"),
        (UNIFORM | {"group": None}, "group is None"),
        (UNIFORM | {"symmetric": 1}, "symmetric is 1; true or false is expected"),
        (UNIFORM | {"packing": "2bit"}, "uniform has exactly"),
        (CODEBOOK | {"bits": 8}, "bits is 8; codebook has 2, 3, 4"),
        (CODEBOOK | {"group": "input"}, "group is 'input'; allowed are matrix, row$"),
        (CODEBOOK | {"symmetric": True}, "codebook has exactly"),
        (BINARY | {"bits": 2}, "bits is 2; binary with terms 1 has 1"),
        (BINARY | {"terms": 2}, "bits is 1; binary with terms 2 has 2"),
        (BINARY | {"bits": 3, "terms": 3}, "terms is 3; allowed are 1 and 2"),
        (BINARY | {"terms": 0}, "terms is 0"),
        (BINARY | {"terms": True}, "terms is True"),
        (BINARY | {"terms": 2.0, "bits": 2}, "terms is 2.0"),
        (TERNARY | {"terms": 1}, "ternary has exactly"),
        (BINARY | {"scale_bits": 8}, "scale_bits is 8; allowed are 32 and 16"),
        (BINARY | {"scale_bits": 32.0}, "scale_bits is 32.0"),
        (BINARY | {"scale_bits": None}, "scale_bits is None"),
        (TERNARY | {"scale_bits": 32}, "ternary has exactly"),
        (BINARY | {"group": "row_block"}, "group is 'row_block'; allowed are matrix, row$"),
        ({"scheme": "fp16", "bits": 32, "shape": [22, 22]}, "bits is 32; fp16 has 16"),
        ({"scheme": "fp16", "bits": 16, "group": "row", "shape": [22, 22]}, "fp16 has exactly"),
    ],
)
def test_entry_that_its_scheme_does_not_have(artifact: Path, entry: dict[str, Any], match: str) -> None:
    edit_config(artifact, lambda d: quantization(d)["tensors"].update({QUERY: entry}))
    assert refused(artifact, match).tensor == QUERY


@pytest.mark.parametrize(
    ("group", "size", "match"),
    [
        ("matrix", 4, "group_size is 4; null is expected with group 'matrix'"),
        ("row", 1, "group_size is 1; null is expected with group 'row'"),
        ("row_block", None, "group_size is None; an integer from 1 to 65536 is expected"),
        ("row_block", 0, "group_size is 0"),
        ("row_block", 2**16 + 1, "group_size is 65537"),
        ("row_block", True, "group_size is True"),
        ("row_block", 4.0, "group_size is 4.0"),
        ("input", None, "group_size is None; a multiple of 32 from 32 to 65536 is expected"),
        ("input", 16, "group_size is 16"),
        ("input", 33, "group_size is 33"),
        ("input", -32, "group_size is -32"),
        ("input", 2**62, "group_size is"),
    ],
)
def test_group_size_out_of_bounds(artifact: Path, group: str, size: Any, match: str) -> None:
    entry = UNIFORM | {"group": group, "group_size": size}
    edit_config(artifact, lambda d: quantization(d)["tensors"].update({QUERY: entry}))
    assert refused(artifact, match).tensor == QUERY


@pytest.mark.parametrize("name", [QUERY, "layers.1.ffn.output.weight", "pooler.dense.weight"])
@pytest.mark.parametrize("entry", [TERNARY, UNIFORM, {"scheme": "fp32", "bits": 32, "shape": [22, 22]}])
def test_binary_activations_with_other_matrices(binary: Path, name: str, entry: dict[str, Any]) -> None:
    shape = [22, 37] if "ffn" in name else [22, 22]
    edit_config(binary, lambda d: quantization(d)["tensors"].update({name: entry | {"shape": shape}}))
    match = f"scheme is '{entry['scheme']}' where activations are 'binary'; they need binary matrices"
    assert refused(binary, match).tensor == name


def test_binary_matrices_with_fp32_activations(binary: Path) -> None:
    edit_config(binary, lambda d: quantization(d).update(activations={"scheme": "fp32"}))
    error = refused(binary, "where activations are 'fp32'; binary matrices need binary or uniform ones")
    assert error.tensor == QUERY


@pytest.mark.parametrize("bits", [8, 4])
def test_binary_matrices_with_uniform_activations(binary: Path, bits: int) -> None:
    """The bytes are the same: what multiplies them is not their own affair."""
    before = read_artifact(binary).quantized(QUERY)
    activations = {"scheme": "uniform", "bits": bits, "symmetric": False, "range": "token", "clip": None}
    edit_config(binary, lambda d: quantization(d).update(activations=activations))
    np.testing.assert_array_equal(read_artifact(binary).quantized(QUERY).codes, before.codes)


@pytest.mark.parametrize("attention", ["bool", "all", "softmax"])
def test_binary_activations_with_matrices_of_two_terms(tmp_path: Path, attention: str) -> None:
    config = make_binary_config(attention)
    write_sample(tmp_path / "binary", config)
    respecify(tmp_path / "binary", "pooler.dense.weight", terms=2, bits=2)
    error = refused(tmp_path / "binary", "terms is 2 where activations are 'binary'; they need one")
    assert error.tensor == "pooler.dense.weight"


@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("make", [make_mixed_config, make_binary_config, lambda: make_config(activations=FP32)])
def test_a_binary_word_embedding_goes_with_any_activations(
    tmp_path: Path, make: Callable[[], ArtifactConfig], terms: int
) -> None:
    config = make()
    if config.activations == FP32:  # and so are all matrices
        config.tensors.update({n: TensorSpec.fp32(s.shape) for n, s in config.tensors.items() if not s.is_float})
    config.tensors["embeddings.word.weight"] = TensorSpec.binary((61, 22), "row", terms=terms)
    write_sample(tmp_path / "word", config)
    assert read_artifact(tmp_path / "word").dense("embeddings.word.weight").shape == (61, 22)


@pytest.mark.parametrize("attention", ["bool", "all"])
def test_binary_activations_with_relu(binary: Path, attention: str) -> None:
    edit_config(binary, lambda d: quantization(d)["activations"].update(attention=attention))
    edit_config(binary, lambda d: d.update(hidden_act="relu"))
    refused(binary, r"activations.scheme is 'binary' with hidden_act 'relu', whose signs are all \+1")


@pytest.mark.parametrize("attention", ["Bool", "sign", "", None, 1, True, ["bool"], {}])
def test_unknown_binary_attention(binary: Path, attention: Any) -> None:
    edit_config(binary, lambda d: quantization(d)["activations"].update(attention=attention))
    refused(binary, "activations.attention is .*; allowed are bool, all, softmax")


def test_binary_attention_missing(binary: Path) -> None:
    edit_config(binary, lambda d: quantization(d)["activations"].pop("attention"))
    refused(binary, "activations lacks the key 'attention'")


@pytest.mark.parametrize("key", ["bits", "symmetric", "range", "clip"])
def test_binary_activations_have_no_other_key(binary: Path, key: str) -> None:
    edit_config(binary, lambda d: quantization(d)["activations"].update({key: None}))
    refused(binary, f"activations has the unknown key '{key}'")


# ---- entries against config.json -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "row_bytes"),
    [(UNIFORM, 11), (UNIFORM | {"bits": 3}, 9), (UNIFORM | {"bits": 8}, 22), (CODEBOOK, 11)],
)
def test_bytes_of_a_row_disagree_with_the_bits(artifact: Path, entry: dict[str, Any], row_bytes: int) -> None:
    """The file has 6 bytes a row: 22 ternary codes."""
    edit_config(artifact, lambda d: quantization(d)["tensors"].update({QUERY: entry}))
    error = refused(artifact, rf"is U8 \[22, 6\] in model.safetensors; the config gives U8 \[22, {row_bytes}\]")
    assert error.tensor == f"{QUERY}.codes"


@pytest.mark.parametrize(
    ("group", "size", "scales"), [("matrix", None, "[1]"), ("row_block", 5, "[5]"), ("input", 32, "[22, 1]")]
)
def test_scales_disagree_with_the_group(mixed: Path, group: str, size: int | None, scales: str) -> None:
    respecify(mixed, QUERY, group=group, group_size=size)
    error = refused(mixed, rf"is F32 \[22\] in model.safetensors; the config gives F32 {re.escape(scales)}")
    assert error.tensor == f"{QUERY}.scale"


def test_scales_disagree_with_their_bits(binary: Path) -> None:
    respecify(binary, "layers.0.attention.key.weight", scale_bits=16)
    refused(binary, r"is F32 \[22\] in model.safetensors; the config gives F16 \[22\]")


def test_codes_or_scales_disagree_with_the_terms(two_terms: Path) -> None:
    respecify(two_terms, QUERY, terms=1, bits=1)
    error = refused(two_terms, r"is U8 \[2, 14, 3\] in model.safetensors; the config gives U8 \[14, 3\]")
    assert error.tensor == f"{QUERY}.codes"
    respecify(two_terms, QUERY, terms=2, bits=2, group="row")
    error = refused(two_terms, r"is F32 \[2\] in model.safetensors; the config gives F32 \[2, 14\]")
    assert error.tensor == f"{QUERY}.scale"
    respecify(two_terms, QUERY, group="matrix")
    respecify(two_terms, "layers.0.attention.key.weight", terms=2, bits=2)
    refused(two_terms, r"is U8 \[14, 3\] in model.safetensors; the config gives U8 \[2, 14, 3\]")


def test_offset_missing_or_unexpected(mixed: Path) -> None:
    respecify(mixed, QUERY, symmetric=False)
    assert refused(mixed, "is missing from model.safetensors").tensor == f"{QUERY}.offset"
    respecify(mixed, QUERY, symmetric=True)
    respecify(mixed, "embeddings.word.weight", symmetric=True)
    assert refused(mixed, "the config has no such tensor").tensor == "embeddings.word.weight.offset"


def test_table_disagrees_with_the_bits(mixed: Path) -> None:
    """22 codes of 4 bits take 11 bytes, of 3 bits 9; the table of the file has 16 levels."""
    name = "layers.1.attention.value.weight"
    header, data = split_container(mixed)
    table = header[f"{name}.table"]
    table["shape"] = [2, 8]
    join_container(mixed, header, data)
    assert refused(mixed, r"is I8 \[2, 8\] .*; the config gives I8 \[16\]").tensor == f"{name}.table"
    table.update(shape=[16], dtype="U8")
    join_container(mixed, header, data)
    assert refused(mixed, r"is U8 \[16\] .*; the config gives I8 \[16\]").tensor == f"{name}.table"


def test_misaligned_fp16(mixed: Path) -> None:
    """Only the fp16 tensors, behind 65 bytes of codes."""
    header, data = split_container(mixed)
    halves = {name: entry for name, entry in header.items() if entry["dtype"] == "F16"}
    start = min(entry["data_offsets"][0] for entry in halves.values())
    end = max(entry["data_offsets"][1] for entry in halves.values())
    for entry in halves.values():
        entry["data_offsets"] = [offset - start + 65 for offset in entry["data_offsets"]]
    halves["pooler.dense.weight.codes"] = {"dtype": "U8", "shape": [65], "data_offsets": [0, 65]}
    join_container(mixed, halves, bytes(65) + data[start:end])
    refused(mixed, "F16 must start on a multiple of 2")


# ---- content ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("layers.0.ffn.intermediate.weight", 2),  # 22 codes of 3 bits: 66 bits
        ("layers.0.ffn.output.weight", 7),  # 37 of 3 bits: 111
        ("layers.1.attention.query.weight", 4),  # 22 of 2 bits: 44
        ("layers.1.attention.output.weight", 4),  # codebook
        ("layers.0.ffn.output.weight", 5),  # 37 of 1 bit
        ("pooler.dense.weight", 6),
    ],
)
def test_padding_bits_of_a_bit_string_set(mixed: Path, binary: Path, name: str, used: int) -> None:
    mixed = binary if used in (5, 6) else mixed
    for bit in range(used, 8):

        def flip(codes: np.ndarray[Any, Any], mask: int = 1 << bit) -> None:
            codes[-1] ^= mask

        edit_entry(mixed, f"{name}.codes", flip)
        assert refused(mixed, f"padding is not zero; {used} bits of it hold codes").tensor == name
        edit_entry(mixed, f"{name}.codes", flip)
    read_artifact(mixed)


@pytest.mark.parametrize(("term", "row"), [(0, 0), (0, 13), (1, 0), (1, 13)])
def test_padding_bits_of_a_term_set(two_terms: Path, term: int, row: int) -> None:
    """22 codes of 1 bit leave two bits of the third byte of a row."""
    edit_entry(two_terms, f"{QUERY}.codes", lambda a: a.reshape(2, 14, 3).__setitem__((term, row, 2), 64))
    assert refused(two_terms, f"row {row} ends in byte 0x40, whose padding is not zero").tensor == QUERY


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0])
@pytest.mark.parametrize("term", [0, 1])
@pytest.mark.parametrize("name", [QUERY, "layers.1.ffn.output.weight", "embeddings.word.weight"])
def test_scale_of_a_term_not_finite_and_positive(two_terms: Path, name: str, term: int, value: float) -> None:
    edit_entry(two_terms, f"{name}.scale", lambda a: a.reshape(2, -1).__setitem__((term, -1), value))
    assert refused(two_terms, f"is {value}; scales must be finite and above 0").tensor == f"{name}.scale"


def test_terms_whose_sum_would_leave_fp32(two_terms: Path) -> None:
    edit_entry(two_terms, f"{QUERY}.scale", lambda a: a.__setitem__(1, 2e38))
    assert refused(two_terms, "so that weights would leave fp32").tensor == f"{QUERY}.scale"


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        (QUERY, 8),
        ("layers.0.attention.value.weight", 4),
        ("layers.0.ffn.intermediate.weight", 3),
        ("layers.1.attention.key.weight", 2),
    ],
)
def test_symmetric_code_zero(mixed: Path, name: str, bits: int) -> None:
    """At every column of a row: in every place of a byte, and in the last byte beside the padding."""
    value = make_tensors(make_mixed_config())[name]
    assert isinstance(value, UniformTensor)
    for column in range(22):
        codes = value.codes.copy()
        codes[7, column] = 0
        packed = pack_bits(codes, bits).reshape(-1)
        edit_entry(mixed, f"{name}.codes", lambda a, packed=packed: a.__setitem__(slice(None), packed))
        error = refused(mixed, f"the code in row 7, column {column} is 0; symmetric codes of {bits} bits run from 1")
        assert error.tensor == name


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["embeddings.position.weight", "embeddings.norm.bias"])
def test_non_finite_fp16(mixed: Path, name: str, value: float) -> None:
    edit_entry(mixed, name, lambda a: a.__setitem__(-1, value))
    assert refused(mixed, f"is {value}; only finite numbers are allowed").tensor == name


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0])
@pytest.mark.parametrize(
    "name", ["layers.0.ffn.output.weight", "layers.1.attention.value.weight", "pooler.dense.weight"]
)
@pytest.mark.parametrize("scheme", ["mixed", "binary"])  # binary: fp16 in the second layer
def test_scale_of_any_scheme_not_finite_and_positive(
    mixed: Path, binary: Path, scheme: str, name: str, value: float
) -> None:
    mixed = binary if scheme == "binary" else mixed
    edit_entry(mixed, f"{name}.scale", lambda a: a.__setitem__(-1, value))
    assert refused(mixed, f"is {value}; scales must be finite and above 0").tensor == f"{name}.scale"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["embeddings.word.weight", "layers.0.ffn.output.weight"])
def test_offset_not_finite(mixed: Path, name: str, value: float) -> None:
    edit_entry(mixed, f"{name}.offset", lambda a: a.__setitem__(-1, value))
    assert refused(mixed, f"is {value}; only finite numbers are allowed").tensor == f"{name}.offset"


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        (f"{QUERY}.scale", 1e36),
        ("layers.0.ffn.output.weight.scale", 1e38),
        ("layers.1.attention.value.weight.scale", 1e37),
        ("embeddings.word.weight.offset", 3e38),
        ("embeddings.word.weight.offset", -3e38),
    ],
)
def test_weights_would_leave_fp32(mixed: Path, entry: str, value: float) -> None:
    edit_entry(mixed, entry, lambda a: a.__setitem__(-1, value))
    assert refused(mixed, "so that weights would leave fp32").tensor == entry
