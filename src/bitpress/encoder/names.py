"""Tensor names: bitpress's own (canonical) and those of Hugging Face BERT checkpoints, mapped both ways.

The canonical names are also the module names of :mod:`bitpress.encoder.model`, so ``state_dict()`` needs no map.
"""

from __future__ import annotations

import re

_BODY = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "pooler.dense": "pooler.dense",
}
_LAYER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.distance": "attention.self.distance_embedding",
    "attention.output": "attention.output.dense",
    "attention.norm": "attention.output.LayerNorm",
    "ffn.intermediate": "intermediate.dense",
    "ffn.output": "output.dense",
    "ffn.norm": "output.LayerNorm",
}
_BODY_FROM_HF = {theirs: ours for ours, theirs in _BODY.items()}
_LAYER_FROM_HF = {theirs: ours for ours, theirs in _LAYER.items()}
# TensorFlow's names, in checkpoints converted before 2019.
_LEGACY_SUFFIX = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

_CANONICAL_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
_HF_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")


def to_hf_name(name: str) -> str:
    """The name of canonical tensor ``name`` in a ``BertForSequenceClassification`` checkpoint.

    Raises:
        KeyError: ``name`` is not canonical.
    """
    module, _, leaf = name.rpartition(".")
    if module == "classifier":
        return name
    if match := _CANONICAL_LAYER.fullmatch(module):
        return f"bert.encoder.layer.{match[1]}.{_LAYER[match[2]]}.{leaf}"
    return f"bert.{_BODY[module]}.{leaf}"


def from_hf_name(name: str) -> str | None:
    """The canonical name of Hugging Face tensor ``name`` (with or without ``bert.``), or None if it has none."""
    name = name.removeprefix("bert.")
    for legacy, modern in _LEGACY_SUFFIX.items():
        if name.endswith(legacy):
            name = name.removesuffix(legacy) + modern
    module, _, leaf = name.rpartition(".")
    if module == "classifier":
        return name
    if match := _HF_LAYER.fullmatch(module):
        ours = _LAYER_FROM_HF.get(match[2])
        return f"layers.{match[1]}.{ours}.{leaf}" if ours else None
    ours = _BODY_FROM_HF.get(module)
    return f"{ours}.{leaf}" if ours else None


def is_ignored(name: str) -> bool:
    """True for tensors a classifier never reads: position counters stored as buffers, and the heads of other tasks
    (everything but embeddings, encoder, pooler and a linear classifier)."""
    name = name.removeprefix("bert.")
    if name in ("embeddings.position_ids", "classifier.weight", "classifier.bias"):
        return name == "embeddings.position_ids"
    return not name.startswith(("embeddings.", "encoder.", "pooler."))
