"""Oracle of BiT models in the engine: docs/numerics.md in numpy, with every rounding that decides about a bit.

Shapes as in engine_oracle: N tokens, H hidden, T tokens of one sequence, d head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import engine_oracle as oracle
import numpy as np
from engine_oracle import F32, Array, TinyModel

from bitpress.runtime.engine import apply_function


def fma(a: Array, b: Array, c: Array) -> Array:
    """float32 a·b + c, rounded once.

    The product is exact in float64. Its sum with c is rounded to odd there, which keeps what a second rounding, to 29
    bits fewer, needs to know of the exact one.
    """
    product, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = np.asarray(product + c)
    back = total - product
    error = (product - (total - back)) + (c - back)
    is_even = total.view(np.int64) % 2 == 0
    return np.where(is_even & (error != 0), np.nextafter(total, np.copysign(np.inf, error)), total).astype(F32)


def elastic_layer(model: TinyModel, i: int, hidden: Array, lengths: Sequence[int]) -> tuple[Array, Array]:
    """Layer i on hidden [N, H], float64 → its output [N, H], and [N] how near to its threshold a number comes that
    floats have a part in: below the rounding of fp32 the engine may decide either way.

    Those are the outputs of the LayerNorm after attention. Everything else is computed as the engine must.
    """
    name = f"layers.{i}.attention"
    parts = ("query", "key", "value")
    query, key, value = (
        oracle.signs(linear(model, f"{name}.{p}", input_bits(model, f"{name}.{p}", hidden))) for p in parts
    )
    context = np.zeros_like(query)
    d = oracle.head_size(model)
    for start, end in zip(np.cumsum([0, *lengths[:-1]]), np.cumsum(lengths), strict=True):
        for head in range(model.config.num_heads):
            part = np.s_[start:end, head * d : (head + 1) * d]
            mismatches = ((d - query[part] @ key[part].T) / 2).astype(np.int64)
            context[part] = attended_keys(model, name, mismatches, d).astype(np.float64) @ value[part]
    worth = number(model, f"{name}.probabilities.scale") * number(model, f"{name}.value_states.scale")
    bits = oracle.signs((worth * context.astype(F32)) + model.elastic[f"{name}.output.input.shift"])
    middle = oracle.norm(model, f"{name}.norm", linear(model, f"{name}.output", bits) + hidden)

    name = f"layers.{i}.ffn"
    up = linear(model, f"{name}.intermediate", input_bits(model, f"{name}.intermediate", middle))
    half = number(model, f"{name}.output.input.scale") * F32(0.5)
    ones = np.maximum(up, F32(0)) + model.elastic[f"{name}.output.input.shift"] >= half
    down = linear(model, f"{name}.output", ones.astype(np.float64))
    decisive = np.abs(middle + model.elastic[f"{name}.intermediate.input.shift"]).min(1)
    return oracle.norm(model, f"{name}.norm", down + middle), decisive


def classify(model: TinyModel, hidden: Array, lengths: Sequence[int]) -> Array:
    """Logits [B, C] of the last hidden states [N, H]."""
    first = hidden[np.cumsum([0, *lengths[:-1]])]
    pooler = linear(model, "pooler.dense", input_bits(model, "pooler.dense", first)).astype(np.float64)
    return oracle.logits_of(model, pooler)


def attended_keys(model: TinyModel, name: str, mismatches: Array, d: int) -> Array:
    """[T, T] whether a query attends to a key, from the mismatches of their bits."""
    c = number(model, f"{name}.query_states.scale") * number(model, f"{name}.key_states.scale") / np.sqrt(F32(d))
    decay = -(c * np.arange(0, 2 * d + 1, 2).astype(F32))
    apply_function("exp", decay)
    fewest = mismatches.min(1)
    total = np.zeros(len(mismatches), F32)
    for m in range(d + 1):
        count = (mismatches == m).sum(1)
        added = fma(count.astype(F32), decay[np.maximum(m - fewest, 0)], total)
        total = np.where(count > 0, added, total)
    probabilities = decay[mismatches - fewest[:, None]] / total[:, None]
    return probabilities >= number(model, f"{name}.probabilities.scale") * F32(0.5)


def input_bits(model: TinyModel, name: str, x: Array) -> Array:
    """±1 of x [N, inputs]; exact, as a sum of two fp32 numbers in float64 has the right sign."""
    return oracle.signs(x + model.elastic[f"{name}.input.shift"].astype(np.float64))


def linear(model: TinyModel, name: str, bits: Array) -> Array:
    """float32 fma(float(dot), α·scale, bias); bits are ±1, or 0 and 1."""
    tensor, values = model.packed[f"{name}.weight"]
    dot = bits @ oracle.signs(values).T
    scale = np.broadcast_to(number(model, f"{name}.input.scale") * tensor.scale.reshape(-1), dot.shape[1:])
    return fma(dot, scale, model.dense[f"{name}.bias"])


def number(model: TinyModel, name: str) -> np.float32:
    value: np.float32 = model.elastic[name][0]
    return value
