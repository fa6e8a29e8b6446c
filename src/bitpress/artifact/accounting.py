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
OPERATIONS = (
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


def binary_operations(
    layers: int, hidden: int, attention: int, intermediate: int, tokens: int = OPERATION_TOKENS
) -> dict[str, Any]:
    """10⁹ operations (two a multiply-add) of the layers' products in fp32 and in bits, and their ratio: OPERATIONS.

    ``attention``: columns of all heads.
    """
    linears = tokens * (4 * hidden * attention + 2 * hidden * intermediate)
    scores_and_context = 2 * tokens * tokens * attention
    fp32 = 2e-9 * layers * (linears + scores_and_context)
    binary = fp32 / 64
    rounded = math.ceil(10 * binary) / 10
    return {"label": OPERATIONS, "tokens": tokens, "fp32": fp32, "binary": binary, "ratio": fp32 / rounded}


def _size(label: str, size: float, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    fp32 = 4 * sum(math.prod(spec.shape) for spec in specs.values())
    return {"label": label, "mib": size / 2**20, "ratio": fp32 / size}
