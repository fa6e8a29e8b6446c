"""What papers count as the size and the work of a quantized BERT, beside what is measured here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bitpress.artifact import stored
from bitpress.artifact.container import DTYPES
from bitpress.artifact.tensor_spec import TensorSpec

TERNARYBERT = "TernaryBERT paper's accounting: packed codes + fp32 scales + fp32 rest, in MiB of 2^20, no container"
BIBERT = (
    "BiBERT paper's accounting: bits of the layers' matrices and the word embedding + fp32 biases and LayerNorm, in "
    "MiB of 2^20; no positions, pooler, head or scales"
)
OPERATIONS = "operations of the layers' products, two a multiply-add, as TinyBERT's paper counts them"
BINARY_OPERATIONS = (
    "theoretical operations of the layers' products, as the papers count them: 64 one-bit ones for one, rounded up to "
    "tenths of 10^9 (BERT-base, 128 tokens: they print 22.5 / 0.4 = 56.3)"
)
OPERATION_TOKENS = 128


def paper_accounting(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """The size as TernaryBERT's paper counts it: bits·weights/8 + 4 a scale or offset + 4 a weight left in fp32.

    Gives the published 28.07 MiB and 14.88 for BERT-base at 2 bits. No padding, header or number of activations is
    counted.
    """
    size = 0.0
    for name, spec in specs.items():
        size += math.prod(spec.shape) * spec.bits / 8
        if not spec.is_float:
            beside = [entry for key, entry in stored.entries(name, spec).items() if key != f"{name}.codes"]
            size += sum(math.prod(shape) * DTYPES[dtype].itemsize for dtype, shape in beside)
    return _size(TERNARYBERT, size, specs)


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
