"""What papers count as the size and the work of a quantized BERT, beside what is measured here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bitpress.artifact import stored
from bitpress.artifact.container import DTYPES
from bitpress.artifact.model_config import POSITIONS, can_be_quantized
from bitpress.artifact.tensor_spec import TensorSpec

TERNARYBERT = "TernaryBERT paper's accounting: packed codes + fp32 scales + fp32 rest, in MiB of 2^20, no container"
BIBERT = (
    "BiBERT paper's accounting: bits of the layers' matrices and the word embedding + fp32 biases and LayerNorm, in "
    "MiB of 2^20; no positions, pooler, head or scales"
)
QBERT = (
    "Q-BERT paper's accounting: every number of a layer at the bits of its matrices, biases and LayerNorm included, "
    "positions at their own, every other number of the embeddings at those of the word embedding, and fp32 scales and "
    "offsets of the layers, in MiB of 2^20; no pooler or head"
)
GOBO = (
    "GOBO paper's accounting: codes, fp32 tables of 2^bits entries and 40 bits an outlier (fp32, and its place in a "
    "block of 256) of the layers', the pooler's and the word embedding's matrices alone, in MiB of 2^20"
)
GOBO_OUTLIER_BITS = 40
OPERATIONS = "operations of the layers' products, two a multiply-add, as TinyBERT's paper counts them"
BINARY_OPERATIONS = (
    "theoretical operations of the layers' products, as the papers count them: 64 one-bit ones for one, rounded up to "
    "tenths of 10^9 (BERT-base, 128 tokens: they print 22.5 / 0.4 = 56.3)"
)
OPERATION_TOKENS = 128


def tensor_bytes(name: str, spec: TensorSpec) -> int:
    """Bytes of all entries that hold tensor ``name``: packed codes with their padding, scales, offsets, tables."""
    return sum(math.prod(shape) * DTYPES[dtype].itemsize for dtype, shape in stored.entries(name, spec).values())


def paper_accounting(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """The size as TernaryBERT's paper counts it: bits·weights/8 + 4 a scale or offset + 4 a weight left in fp32.

    Gives the published 28.07 MiB and 14.88 for BERT-base at 2 bits. No padding, header or number of activations is
    counted.
    """
    size = 0.0
    for name, spec in specs.items():
        size += math.prod(spec.shape) * spec.bits / 8
        if not spec.is_float:
            size += _side_bytes(name, spec)
    return _size(TERNARYBERT, size, specs)


def qbert_accounting(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """The size as Q-BERT's paper counts it (spec: 63.36 MiB for BERT-base at 4 bits and embeddings at 8): see QBERT.

    Biases and LayerNorm of a layer have the bits of the matrix before them in this count only: bitpress stores them in
    fp32 or fp16.

    Returns:
        label, mib, ratio (fp32 of the same tensors, over it), encoder_mib and encoder_ratio: the layers alone.
    """
    embeddings, layers, numbers = 0.0, 0.0, {"embeddings": 0, "layers": 0}
    for name, spec in specs.items():
        part = name.split(".")[0]
        if part not in numbers:
            continue
        count = math.prod(spec.shape)
        numbers[part] += count
        if part == "embeddings":
            embeddings += count * specs[name if name == POSITIONS else "embeddings.word.weight"].bits / 8
        else:
            layers += count * specs[_matrix_before(name)].bits / 8
            layers += 0 if spec.is_float else _side_bytes(name, spec)
    total = embeddings + layers
    return {
        "label": QBERT,
        "mib": total / 2**20,
        "ratio": 4 * sum(numbers.values()) / total,
        "encoder_mib": layers / 2**20,
        "encoder_ratio": 4 * numbers["layers"] / layers,
    }


def gobo_accounting(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """The size as GOBO's paper counts it: see GOBO. Of BERT-base with 0.1 % of outliers it gives the published ratios,
    9.83 with 3 bits and a word embedding of 4, and 7.92 with 4 and 4.

    Returns:
        label, mib, ratio (fp32 of the same matrices, over it), outliers and share (of these matrices' weights).
    """
    size, weights, outliers = 0.0, 0, 0
    for name, spec in specs.items():
        if not can_be_quantized(name):
            continue
        count = math.prod(spec.shape)
        weights += count
        size += count * spec.bits / 8
        if spec.scheme == "codebook":
            outliers += spec.outliers or 0
            size += 4 * 2**spec.code_bits + (spec.outliers or 0) * GOBO_OUTLIER_BITS / 8
    return {
        "label": GOBO,
        "mib": size / 2**20,
        "ratio": 4 * weights / size,
        "outliers": outliers,
        "share": outliers / weights,
    }


def _matrix_before(name: str) -> str:
    """The matrix of a layer whose bias or LayerNorm ``name`` is, or which it is itself."""
    return f"{name.rpartition('.')[0]}.weight".replace(".norm.", ".output.")


def _side_bytes(name: str, spec: TensorSpec) -> int:
    """Of a quantized tensor, everything but its codes."""
    dtype, shape = stored.entries(name, spec)[f"{name}.codes"]
    return tensor_bytes(name, spec) - math.prod(shape) * DTYPES[dtype].itemsize


def binary_accounting(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """The size as BiBERT's and BiT's papers count it (spec: 13.38 MiB and 31.2 for BERT-base): see BIBERT."""
    size = 0.0
    for name, spec in specs.items():
        if name.startswith("layers.") or name == "embeddings.word.weight":
            size += math.prod(spec.shape) * (4 if spec.is_float else spec.bits / 8)
        elif name.startswith("embeddings.norm."):
            size += math.prod(spec.shape) * 4
    return _size(BIBERT, size, specs)


def operations(
    layers: int, hidden: int, attention: int, intermediate: int, tokens: int = OPERATION_TOKENS
) -> dict[str, Any]:
    """10⁹ operations of one text: OPERATIONS. Gives 22.35, 11.17 and 1.25 for BERT-base, TinyBERT-6 and TinyBERT-4,
    where the paper prints 22.5, 11.3 and 1.2.

    ``attention``: columns of all heads.
    """
    linears = tokens * (4 * hidden * attention + 2 * hidden * intermediate)
    scores_and_context = 2 * tokens * tokens * attention
    return {"label": OPERATIONS, "tokens": tokens, "giga": 2e-9 * layers * (linears + scores_and_context)}


def binary_operations(fp32: Mapping[str, Any]) -> dict[str, Any]:
    """The same in bits, of what :func:`operations` gives: BINARY_OPERATIONS."""
    giga = fp32["giga"]
    binary = giga / 64
    rounded = math.ceil(10 * binary) / 10
    label, tokens = BINARY_OPERATIONS, fp32["tokens"]
    return {"label": label, "tokens": tokens, "fp32": giga, "binary": binary, "ratio": giga / rounded}


def _size(label: str, size: float, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    fp32 = 4 * sum(math.prod(spec.shape) for spec in specs.values())
    return {"label": label, "mib": size / 2**20, "ratio": fp32 / size}
