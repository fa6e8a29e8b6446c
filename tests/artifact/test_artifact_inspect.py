"""Sizes and re-check. Oracles: the published figures of TernaryBERT (28.07 MiB, 14.88), and bytes counted on disk."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_samples import (
    QUERY,
    edit_entry,
    hf_config,
    make_binary_config,
    make_binarybert_config,
    make_config,
    make_mixed_config,
    write_sample,
)

from bitpress.artifact import (
    WEIGHTS_DIGEST_KEY,
    ActivationSpec,
    ArtifactError,
    TensorSpec,
    TernaryTensor,
    binary_accounting,
    binary_operations,
    describe,
    elastic_entries,
    expected_tensors,
    operations,
    paper_accounting,
    read_artifact,
    stored,
    verify,
    write_artifact,
)
from bitpress.artifact.container import DTYPES, serialize
from bitpress.artifact.model_config import can_be_quantized

MIB = 2**20


def bert_base() -> dict[str, Any]:
    return hf_config(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        vocab_size=30522,
        max_position_embeddings=512,
        id2label=...,
        label2id=...,
    )


def test_paper_accounting_of_bert_base() -> None:
    """spec of TernaryBERT §1: 109,483,778 parameters, 417.6 MiB; 28.07 MiB at 2 bits, 22.88 at 1.6."""
    two_bit = paper_accounting(make_config("2bit", model=bert_base(), max_length=128).tensors)
    trits = paper_accounting(make_config("trits", model=bert_base(), max_length=128).tensors)
    assert two_bit["label"] == (
        "TernaryBERT paper's accounting: packed codes + fp32 scales + fp32 rest, in MiB of 2^20, no container"
    )
    assert (round(two_bit["mib"], 2), round(two_bit["ratio"], 2)) == (28.07, 14.88)
    assert (round(trits["mib"], 2), round(trits["ratio"], 1)) == (22.88, 18.3)


def test_binary_accounting_of_bert_base() -> None:
    """spec of BiBERT §8: 13.382 MiB, 31.2 times less than fp32; 22.35·10⁹ operations in fp32, 0.349 as 64-bit words."""
    specs = {
        name: TensorSpec.binary(shape, "row")
        if can_be_quantized(name) and name != "classifier.weight"
        else TensorSpec.fp32(shape)
        for name, shape in expected_tensors(bert_base()).items()
    }
    counted = binary_accounting(specs)
    assert counted["label"].startswith("BiBERT paper's accounting")
    assert (round(counted["mib"], 2), round(counted["ratio"], 1)) == (13.38, 31.2)
    work = binary_operations(operations(12, 768, 768, 3072))
    assert (round(work["fp32"], 2), round(work["binary"], 3), round(work["ratio"])) == (22.35, 0.349, 56)


@pytest.mark.parametrize(
    ("layers", "hidden", "intermediate", "parameters", "giga"),
    [(12, 768, 3072, 109_482_240, 22.35), (6, 768, 3072, 66_955_008, 11.17), (4, 312, 1200, 14_350_248, 1.25)],
)
def test_shapes_of_tinyberts_paper(layers: int, hidden: int, intermediate: int, parameters: int, giga: float) -> None:
    """spec of TinyBERT §1: parameters of encoder and pooler, operations of 128 tokens."""
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": intermediate}
    shapes = expected_tensors(bert_base() | sizes)
    counted = sum(math.prod(shape) for name, shape in shapes.items() if not name.startswith("classifier."))
    assert counted == parameters
    assert round(operations(layers, hidden, hidden, intermediate)["giga"], 2) == giga


@pytest.mark.parametrize(("packing", "limit"), [("2bit", 28.2), ("trits", 23.0)])
def test_bert_base_file(tmp_path: Path, packing: str, limit: float) -> None:
    """A real file of random weights: its size, its description and its re-check."""
    random = np.random.default_rng(7)
    config = make_config(packing, model=bert_base(), max_length=128)
    tensors: dict[str, Any] = {}
    for name, spec in config.tensors.items():
        if spec.packing is None:
            tensors[name] = random.standard_normal(spec.shape, np.float32)
        else:
            scale = random.uniform(0.01, 0.1, spec.shape[0] if spec.group == "row" else 1).astype(np.float32)
            tensors[name] = TernaryTensor(random.integers(-1, 2, spec.shape, np.int8), scale)
    write_artifact(tmp_path / "base", config, tensors, {}, {"tokenizer.json": b"{}"}, "", {})
    size = (tmp_path / "base" / "model.safetensors").stat().st_size
    assert size <= limit * MIB
    described = describe(tmp_path / "base")
    assert described["total_bytes"] == size
    assert described["parameters"] == 109_483_778
    assert described["fp32_bytes"] == 4 * 109_483_778
    np.testing.assert_array_equal(
        read_artifact(tmp_path / "base").quantized("layers.11.ffn.output.weight").codes,
        tensors["layers.11.ffn.output.weight"].codes,
    )


@pytest.mark.parametrize("packing", ["2bit", "trits"])
def test_describe_counts_what_is_on_disk(tmp_path: Path, packing: str) -> None:
    path = tmp_path / "model"
    config = write_sample(path, packing=packing)
    described = describe(path)
    size = (path / "model.safetensors").stat().st_size
    header = 8 + int.from_bytes((path / "model.safetensors").read_bytes()[:8], "little")
    assert described["total_bytes"] == size
    assert described["directory_bytes"] == sum((path / name).stat().st_size for name in os.listdir(path))
    assert sum(tensor["bytes"] for tensor in described["tensors"]) == size - header
    assert sum(scheme["bytes"] for scheme in described["schemes"].values()) == size - header
    parameters = sum(int(np.prod(spec.shape)) for spec in config.tensors.values())
    assert (
        described["parameters"] == sum(scheme["parameters"] for scheme in described["schemes"].values()) == parameters
    )
    assert described["fp32_bytes"] == 4 * parameters
    assert described["ratio"] == 4 * parameters / size
    assert described["recipe"] == "ternarybert"
    assert [tensor["name"] for tensor in described["tensors"]] == list(config.tensors)
    by_name = {tensor["name"]: tensor for tensor in described["tensors"]}
    row = 6 if packing == "2bit" else 5  # bytes of 22 codes
    assert by_name["embeddings.word.weight"] == {
        "name": "embeddings.word.weight",
        "scheme": "ternary",
        "bits": 2 if packing == "2bit" else 1.6,
        "shape": [61, 22],
        "bytes": 61 * row + 61 * 4,
        "group": "row",
        "group_size": None,
        "symmetric": None,
        "packing": packing,
        "terms": None,
        "outliers": None,
    }
    assert by_name["pooler.dense.weight"]["bytes"] == 22 * row + 4
    assert by_name["classifier.bias"]["bytes"] == 12


def test_describe_and_account_every_scheme(tmp_path: Path) -> None:
    """Oracle: bits and scales counted by hand for one tensor of each scheme."""
    config = write_sample(tmp_path / "model", make_mixed_config())
    described = describe(tmp_path / "model")
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    header = 8 + int.from_bytes((tmp_path / "model" / "model.safetensors").read_bytes()[:8], "little")
    assert sum(tensor["bytes"] for tensor in described["tensors"]) == size - header
    by_name = {tensor["name"]: tensor for tensor in described["tensors"]}
    expected = {
        "embeddings.word.weight": 61 * 22 + 61 * 8,  # 8 bits a row, scale and offset
        "layers.0.attention.value.weight": 22 * 11 + 5 * 4,  # 4 bits in blocks of 5 rows
        "layers.0.ffn.output.weight": 22 * 14 + 22 * 2 * 8,  # 37 codes of 3 bits; 2 groups of inputs
        "layers.1.attention.value.weight": 22 * 11 + 22 * 4 + 16,  # a table of 16 levels
        "embeddings.position.weight": 33 * 22 * 2,  # fp16
    }
    assert {name: by_name[name]["bytes"] for name in expected} == expected
    assert (by_name["layers.0.ffn.output.weight"]["group"], by_name["layers.0.ffn.output.weight"]["group_size"]) == (
        "input",
        32,
    )
    assert by_name["embeddings.word.weight"]["symmetric"] is False
    assert {"fp16", "fp32", "uniform 8 bits", "uniform 3 bits", "codebook 4 bits", "ternary trits"} <= set(
        described["schemes"]
    )
    one = {"layers.0.ffn.output.weight": config.tensors["layers.0.ffn.output.weight"]}
    assert paper_accounting(one)["mib"] * MIB == pytest.approx(22 * 37 * 3 / 8 + 22 * 2 * 8)


def test_describe_and_account_a_binary_model(tmp_path: Path) -> None:
    config = write_sample(tmp_path / "model", make_binary_config())
    described = describe(tmp_path / "model")
    by_name = {tensor["name"]: tensor["bytes"] for tensor in described["tensors"]}
    assert by_name["layers.0.ffn.output.weight"] == 22 * 5 + 22 * 4  # 37 signs, an fp32 scale
    assert by_name["layers.1.ffn.output.weight"] == 22 * 5 + 22 * 2
    assert described["activations"]["scheme"] == "binary"
    assert described["schemes"].keys() == {"binary 1 bits", "fp16", "fp32"}
    one = {"layers.1.ffn.output.weight": config.tensors["layers.1.ffn.output.weight"]}
    assert paper_accounting(one)["mib"] * MIB == pytest.approx(22 * 37 / 8 + 22 * 2)


def test_describe_account_and_verify_terms(tmp_path: Path) -> None:
    """Oracle: bytes counted by hand. 22 signs take 3 bytes, 37 take 5; 14 columns of attention."""
    config = write_sample(tmp_path / "model", make_binarybert_config())
    described = describe(tmp_path / "model")
    by_name = {tensor["name"]: tensor for tensor in described["tensors"]}
    expected = {
        "embeddings.word.weight": (2, 2, 2 * 61 * 3 + 2 * 61 * 4),
        QUERY: (2, 2, 2 * 14 * 3 + 2 * 4),
        "layers.0.attention.key.weight": (1, 1, 14 * 3 + 14 * 4),
        "layers.1.ffn.output.weight": (2, 2, 2 * 22 * 5 + 2 * 22 * 2),  # fp16 scales
    }
    found = {name: tuple(by_name[name][key] for key in ("bits", "terms", "bytes")) for name in expected}
    assert found == expected
    assert {"binary 1 bits", "binary 2 bits"} < described["schemes"].keys()
    assert described["activations"]["bits"] == 4
    assert described["parameters"] == sum(math.prod(spec.shape) for spec in config.tensors.values())
    one = {QUERY: config.tensors[QUERY]}
    assert paper_accounting(one)["mib"] * MIB == pytest.approx(2 * 14 * 22 / 8 + 2 * 4)
    counts = {check["check"]: check["count"] for check in verify(tmp_path / "model")["checks"]}
    assert counts["quantized tensors whose decoded codes pack to the same bytes"] == 2 * 6 + 2


def test_describe_and_verify_an_elastic_model(tmp_path: Path) -> None:
    """Oracle: bytes counted by hand. Shifts: 22 columns for 5 layers, 37 for one, in each of 2 layers, and 22."""
    config = write_sample(tmp_path / "model", make_binary_config("softmax"))
    described = describe(tmp_path / "model")
    shifts, scales = 2 * (5 * 22 + 37) + 22, 2 * (6 + 4) + 1
    assert described["schemes"]["elastic"] == {"tensors": 2 * 16 + 2, "parameters": 0, "bytes": 4 * (shifts + scales)}
    assert described["activations"]["attention"] == "softmax"
    assert described["activations"]["elastic_numbers"] == shifts + scales
    by_name = {tensor["name"]: tensor for tensor in described["tensors"]}
    listed = by_name["layers.1.ffn.output.input.shift"]
    assert (listed["scheme"], listed["bits"], listed["shape"], listed["bytes"]) == ("elastic", 32, [37], 148)
    content = (tmp_path / "model" / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    assert sum(tensor["bytes"] for tensor in described["tensors"]) == len(content) - header
    assert described["parameters"] == sum(math.prod(spec.shape) for spec in config.tensors.values())
    counts = {check["check"]: check["count"] for check in verify(tmp_path / "model")["checks"]}
    assert counts["scales and shifts of elastic activations that are finite"] == 2 * 16 + 2


@pytest.mark.parametrize(
    ("half", "elastic", "mib", "most"),
    [(False, False, 15.40, 15.5), (True, False, 14.20, 14.3), (False, True, 15.72, 15.8)],
)
def test_size_of_a_binary_bert_base(half: bool, elastic: bool, mib: float, most: float) -> None:
    """BiBERT's size, honestly counted (spec: 15.40 MiB, 14.20 with what surrounds the bits in fp16), and a header. BiT
    has 83,712 shifts and 121 scales more."""
    plain = TensorSpec.fp16 if half else TensorSpec.fp32
    specs = {
        name: TensorSpec.binary(shape, "row", 16 if half else 32) if can_be_quantized(name) else plain(shape)
        for name, shape in expected_tensors(bert_base()).items()
    }
    entries = [entry for name, spec in specs.items() for entry in stored.entries(name, spec).items()]
    if elastic:
        entries += [(name, ("F32", shape)) for name, shape in elastic_entries(bert_base()).items()]
    data = sum(math.prod(shape) * DTYPES[dtype].itemsize for _, (dtype, shape) in entries)
    header = len(next(serialize({name: np.empty(shape, DTYPES[dtype]) for name, (dtype, shape) in entries})))
    assert data / MIB == pytest.approx(mib, abs=0.005)
    assert (data + header) / MIB <= most


@pytest.mark.parametrize("bits", [8, 4])
def test_describe_activations(tmp_path: Path, bits: int) -> None:
    write_sample(tmp_path / "model", activations=ActivationSpec(bits=bits, symmetric=True, range="static", clip=2.5))
    assert describe(tmp_path / "model")["activations"] == {
        "scheme": "uniform",
        "bits": bits,
        "symmetric": True,
        "range": "static",
        "clip": 2.5,
        "static_ranges": 2 * 8 + 1,
    }


@pytest.mark.parametrize("packing", ["2bit", "trits"])
def test_verify_counts_its_checks(tmp_path: Path, packing: str) -> None:
    write_sample(tmp_path / "model", packing=packing, activations=ActivationSpec(range="static"))
    report = verify(tmp_path / "model")
    assert report["ok"] is True
    counts = {check["check"]: check["count"] for check in report["checks"]}
    assert counts["bytes of model.safetensors that belong to exactly one entry"] == os.path.getsize(
        tmp_path / "model" / "model.safetensors"
    )
    assert counts["quantized tensors whose decoded codes pack to the same bytes"] == 2 * 6 + 2
    assert counts["scales that are finite and above 0"] == 61 + 2 * 6 + 1
    assert counts["static activation ranges that are finite"] == 2 * 8 + 1


def test_verify_reencodes_every_scheme(tmp_path: Path) -> None:
    config = write_sample(tmp_path / "model", make_mixed_config())
    counts = {check["check"]: check["count"] for check in verify(tmp_path / "model")["checks"]}
    quantized = [spec for spec in config.tensors.values() if not spec.is_float]
    assert counts["quantized tensors whose decoded codes pack to the same bytes"] == len(quantized) == 2 * 6 + 2
    assert counts["fp32 and fp16 tensors with finite values only"] == len(config.tensors) - 14
    assert counts["scales that are finite and above 0"] == sum(int(np.prod(s.scale_shape)) for s in quantized)


@pytest.mark.parametrize("check", [describe, verify])
def test_damage_is_an_error(tmp_path: Path, check: Callable[[Path], Any]) -> None:
    write_sample(tmp_path / "model")
    edit_entry(tmp_path / "model", "pooler.dense.weight.codes", lambda a: a.__setitem__(0, 0b10))
    with pytest.raises(ArtifactError, match=r"tensor 'pooler.dense.weight': row 0, byte 0"):
        check(tmp_path / "model")


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]"])
def test_verify_needs_a_tokenizer(tmp_path: Path, content: bytes | None) -> None:
    write_sample(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    if content is not None:
        (tmp_path / "model" / "tokenizer.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        verify(tmp_path / "model")


def test_verify_finds_a_changed_fp32_value_by_the_recorded_checksum(tmp_path: Path) -> None:
    """The format alone cannot: another finite number is as good a number. Oracle: hashlib over the file."""
    path = tmp_path / "model"
    write_sample(path)
    provenance = json.loads((path / "provenance.json").read_text())
    provenance[WEIGHTS_DIGEST_KEY] = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    (path / "provenance.json").write_text(json.dumps(provenance))
    assert "model.safetensors with the SHA-256 that provenance.json records" in [
        check["check"] for check in verify(path)["checks"]
    ]
    edit_entry(path, "classifier.bias", lambda a: a.__setitem__(0, a[0] + 1))
    with pytest.raises(ArtifactError, match=r"SHA-256 is [0-9a-f]{64}, provenance.json records"):
        verify(path)
    (path / "provenance.json").unlink()
    assert verify(path)["ok"]
