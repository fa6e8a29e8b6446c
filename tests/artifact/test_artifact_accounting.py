"""Sizes from a config alone. Oracles: the size columns of the papers, reproduced in their specifications."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bitpress.artifact import TensorSpec, expected_tensors, gobo_accounting, qbert_accounting, stored, tensor_bytes
from bitpress.artifact.container import DTYPES, serialize
from bitpress.artifact.model_config import can_be_quantized, is_layer_matrix

BASE = {
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
MIB = 2**20


def specs(config: dict[str, Any], bits: list[int], embedding: int = 8, groups: int = 128) -> dict[str, TensorSpec]:
    """``bits`` of the layers in turn, in ``groups`` of rows; the tables of words and positions with one range each."""
    found = {}
    for name, shape in expected_tensors(config).items():
        found[name] = TensorSpec.fp32(shape)
        if is_layer_matrix(name):
            layer = int(name.split(".")[1])
            found[name] = TensorSpec.uniform(shape, bits[layer], False, "row_block", shape[0] // groups)
        elif name in ("embeddings.word.weight", "embeddings.position.weight"):
            found[name] = TensorSpec.uniform(shape, embedding, False, "matrix")
        elif name == "pooler.dense.weight":
            found[name] = TensorSpec.uniform(shape, 8, False, "matrix")
    return found


@pytest.mark.parametrize(
    ("bits", "encoder", "total", "published"),
    [
        ([8] * 12, 81.18, 103.92, (103.9, 81.2)),
        ([4] * 12, 40.63, 63.36, (63.4, 40.6)),
        ([3] * 12, 30.49, 53.22, (53.2, 30.5)),
        ([4] * 6 + [2] * 6, 30.49, 53.22, (53.2, 30.5)),
        ([2, 3] * 6, 25.42, 48.15, (48.1, 25.4)),
        ([2] * 12, 20.35, 43.08, (43.1, 20.4)),
    ],
)
def test_the_published_sizes(bits: list[int], encoder: float, total: float, published: tuple[float, float]) -> None:
    """T7. The paper prints MB for 2^20 bytes."""
    found = qbert_accounting(specs(BASE, bits))
    # The embeddings' ranges are not in the specification's count: 16 bytes.
    assert found["encoder_mib"] == pytest.approx(encoder, abs=0.005)
    assert found["mib"] == pytest.approx(total, abs=0.005 + 1e-5)
    assert (found["mib"], found["encoder_mib"]) == (
        pytest.approx(published[0], abs=0.06),
        pytest.approx(published[1], abs=0.06),
    )
    assert found["ratio"] == pytest.approx(415.39 / found["mib"], rel=1e-4)
    assert found["encoder_ratio"] == pytest.approx(324.46 / found["encoder_mib"], rel=1e-4)


def test_the_published_ratios() -> None:
    """12.8 of the encoder, the paper's 13×; 8.6 in all."""
    found = qbert_accounting(specs(BASE, [2, 3] * 6))
    assert found["encoder_ratio"] == pytest.approx(12.8, abs=0.05)
    assert found["ratio"] == pytest.approx(8.6, abs=0.05)


def test_fp32_and_another_vocabulary() -> None:
    for vocabulary, total in ((30522, 415.39), (28996, 410.92)):
        tensors = {
            n: TensorSpec.fp32(shape) for n, shape in expected_tensors(BASE | {"vocab_size": vocabulary}).items()
        }
        found = qbert_accounting(tensors)
        assert (found["mib"], found["encoder_mib"]) == (
            pytest.approx(total, abs=0.005),
            pytest.approx(324.46, abs=0.005),
        )
        assert found["ratio"] == 1


def test_positions_count_with_bits_of_their_own() -> None:
    """§5: words at 4 bits and positions at 8 make 11.554 MiB; token types and LayerNorm go with the words."""
    found = specs(BASE, [8] * 12, embedding=4)
    shape = found["embeddings.position.weight"].shape
    found["embeddings.position.weight"] = TensorSpec.uniform(shape, 8, True, "row")
    counted = qbert_accounting(found)
    assert counted["mib"] - counted["encoder_mib"] == pytest.approx(11.554, abs=0.0005)


def test_what_is_stored_has_biases_in_fp32() -> None:
    """§7: 20.78 MiB at 2 bits, where the paper's count has 20.35."""
    found = specs(BASE, [2] * 12)
    layers = sum(tensor_bytes(name, spec) for name, spec in found.items() if name.startswith("layers."))
    assert layers / MIB == pytest.approx(20.78, abs=0.005)


def test_padding_of_3_bits_is_counted() -> None:
    """10 codes of 3 bits are 30 bits, in 4 bytes a row."""
    spec = TensorSpec.uniform((5, 10), 3, False, "row")
    assert tensor_bytes("layers.0.ffn.output.weight", spec) == 5 * 4 + 2 * 5 * 4
    assert tensor_bytes("layers.0.ffn.output.bias", TensorSpec.fp32((5,))) == 20
    assert tensor_bytes("embeddings.position.weight", TensorSpec.fp16((5, 3))) == 30
    assert math.prod((5, 10)) * 3 / 8 < 5 * 4


@pytest.mark.parametrize(
    ("bits", "word_bits", "share", "mib", "ratio", "file"),
    [
        (3, 3, 0.001, 39.49, 10.53, None),
        (3, 4, 0.001, 42.28, 9.83, 44.64),  # published: 9.83
        (4, 4, 0.001, 52.48, 7.92, 54.84),  # published: 7.92
        (3, 4, 0.005, 44.36, 9.37, None),
    ],
)
def test_gobos_sizes(bits: int, word_bits: int, share: float, mib: float, ratio: float, file: float | None) -> None:
    """GOBO's count of BERT-base, and the weights file of docs/artifact.md."""
    found = {}
    for name, shape in expected_tensors(BASE).items():
        width, outliers = word_bits if name.startswith("embeddings") else bits, round(share * math.prod(shape))
        codebook = TensorSpec.codebook(shape, width, "matrix", outliers)
        found[name] = codebook if can_be_quantized(name) else TensorSpec.fp32(shape)
    counted = gobo_accounting(found)
    assert counted["mib"] == pytest.approx(mib, abs=0.01)
    assert counted["ratio"] == pytest.approx(ratio, abs=0.005)
    assert counted["share"] == pytest.approx(share, rel=1e-4)
    if file is not None:
        entries = {entry: what for name, spec in found.items() for entry, what in stored.entries(name, spec).items()}
        empty = {entry: np.empty(shape, DTYPES[dtype]) for entry, (dtype, shape) in entries.items()}
        header = len(next(serialize(empty)))
        total = header + sum(tensor_bytes(name, spec) for name, spec in found.items())
        assert total / MIB == pytest.approx(file, abs=0.005)
