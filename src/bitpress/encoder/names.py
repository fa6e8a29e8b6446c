"""Tensor names: bitpress's own (canonical) and those of Hugging Face checkpoints of each family, mapped both ways.

The canonical names are also the module names of :mod:`bitpress.encoder.model`, so ``state_dict()`` needs no map.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from bitpress.families import BERT, Family

# TensorFlow's names, in checkpoints converted before 2019.
_LEGACY_SUFFIX = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

_CANONICAL_LAYER = re.compile(r"layers\.(\d+)\.(.+)")


def to_hf_name(name: str, family: Family = BERT) -> str:
    """The name of canonical tensor ``name`` in a sequence classifier's checkpoint of ``family``.

    Raises:
        KeyError: the family has no tensor of that name.
    """
    module, _, leaf = name.rpartition(".")
    if module in family.head:
        return f"{family.head[module]}.{leaf}"
    if match := _CANONICAL_LAYER.fullmatch(module):
        return f"{family.prefix}{family.layers}.{match[1]}.{family.layer[match[2]]}.{leaf}"
    return f"{family.prefix}{family.body[module]}.{leaf}"


def has_tensor(name: str, family: Family) -> bool:
    """Whether checkpoints of ``family`` hold canonical tensor ``name``."""
    module = name.rpartition(".")[0]
    return module in family.head or module in family.body or _CANONICAL_LAYER.fullmatch(module) is not None


def from_hf_name(name: str, family: Family = BERT) -> str | None:
    """The canonical name of Hugging Face tensor ``name`` (with or without the family's prefix), None if it has none."""
    name = name.removeprefix(family.prefix)
    for legacy, modern in _LEGACY_SUFFIX.items():
        if name.endswith(legacy):
            name = name.removesuffix(legacy) + modern
    module, _, leaf = name.rpartition(".")
    if match := re.fullmatch(re.escape(family.layers) + r"\.(\d+)\.(.+)", module):
        ours = _inverse(family.layer).get(match[2])
        return f"layers.{match[1]}.{ours}.{leaf}" if ours else None
    ours = _inverse({**family.body, **family.head}).get(module)
    return f"{ours}.{leaf}" if ours else None


def is_ignored(name: str, family: Family = BERT) -> bool:
    """True for tensors a classifier never reads: position counters stored as buffers, and the heads of other tasks
    (everything but embeddings, layers and the modules of the family's own head)."""
    name = name.removeprefix(family.prefix)
    module, _, leaf = name.rpartition(".")
    if module in family.head.values() and leaf in ("weight", "bias"):
        return False
    roots = {theirs.split(".")[0] for theirs in (*family.body.values(), family.layers)}
    return name.split(".")[0] not in roots or name in ("embeddings.position_ids", "embeddings.token_type_ids")


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in names.items()}
