"""The numbers of elastic binarization (BiT): their names and shapes, and their check.

Of every linear layer but the classifier the scale of its input's bits and a shift of each column, so that the layers
that read the same hidden states read different bits of them; of attention the scales of queries, keys, values and
probabilities. What they mean: docs/numerics.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitpress.artifact import stored
from bitpress.artifact.model_config import attention_size, has_pooler
from bitpress.errors import ArtifactError

STATES = ("query_states", "key_states", "value_states", "probabilities")
# Products of two scales, and of those with sums over at most 2^16 values, then stay far inside fp32.
MAX_SCALE = 2.0**32
# Of a layer's input times a scale of its weights: 2^16 of these products are finite.
MAX_PRODUCT = 2.0**111


def elastic_inputs(model: Mapping[str, Any]) -> dict[str, int]:
    """Columns of the input of every linear layer but the classifier, by the layer's name.

    Args:
        model: the Hugging Face part of a checked config.
    """
    h, a, i = model["hidden_size"], attention_size(model), model["intermediate_size"]
    inputs: dict[str, int] = {}
    for n in range(model["num_hidden_layers"]):
        inputs |= {f"layers.{n}.attention.{part}": h for part in ("query", "key", "value")}
        inputs[f"layers.{n}.attention.output"] = a
        inputs |= {f"layers.{n}.ffn.intermediate": h, f"layers.{n}.ffn.output": i}
    return inputs | ({"pooler.dense": h} if has_pooler(model) else {})


def elastic_entries(model: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every number of elastic binarization, F32, by the name of its entry, with its shape.

    Args:
        model: the Hugging Face part of a checked config.
    """
    entries: dict[str, tuple[int, ...]] = {}
    for name, columns in elastic_inputs(model).items():
        entries |= {f"{name}.input.scale": (1,), f"{name}.input.shift": (columns,)}
    for n in range(model["num_hidden_layers"]):
        entries |= {f"layers.{n}.attention.{state}.scale": (1,) for state in STATES}
    return entries


def check_elastic(model: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """The content of the entries of `elastic_entries`, whose dtypes and shapes are as they should be.

    Raises:
        ArtifactError: names the entry and what is wrong with which value.
    """
    for name in elastic_entries(model):
        if name.endswith(".shift"):
            stored.check_finite(arrays[name], name)
            continue
        stored.check_scale(arrays[name], name)
        if arrays[name][0] > MAX_SCALE:
            raise ArtifactError(f"is {arrays[name][0]}; elastic scales are at most 2^32", name)
    for name in elastic_inputs(model):
        scale, weights = f"{name}.input.scale", f"{name}.weight.scale"
        largest = float(np.max(arrays[weights]))
        if float(arrays[scale][0]) * largest > MAX_PRODUCT:
            raise ArtifactError(
                f"is {arrays[scale][0]} where {weights} has {largest:g}, so that dot products would leave fp32; "
                "their product may be 2^111 at most",
                scale,
            )
