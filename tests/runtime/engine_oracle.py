"""Oracle of the engine tests: the same encoder in plain numpy, and tiny random models to run through both.

The oracle quantizes in fp32, exactly by the formulas of the activation quantizer, and does everything between two
quantizers in float64. Shapes: N tokens, E embedding, H hidden, A attention (all heads), I intermediate, B sequences, T
tokens of one of them, d head size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitpress.artifact import Outliers, elastic_entries
from bitpress.artifact.codec import pack_ternary
from bitpress.families import POOLED_HEADS, POOLINGS
from bitpress.runtime.engine import Engine, EngineConfig, PackedTensor

Array = NDArray[Any]
F32 = np.float32


@dataclass
class TinyModel:
    """Tensors in both forms. ``dense``: float32, packed ones decoded; ``codes``: int8 codes and scale of ternary ones;
    ``packed``: those of other forms, and their exact values in float64; ``elastic``: scales and shifts of bits."""

    config: EngineConfig
    packing: str = "2bit"
    dense: dict[str, Array] = field(default_factory=dict)
    codes: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    packed: dict[str, tuple[PackedTensor, Array]] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    elastic: dict[str, Array] = field(default_factory=dict)

    def tensors(self) -> dict[str, Any]:
        """As the engine takes them."""
        packed = {name: packed_ternary(codes, scale, self.packing) for name, (codes, scale) in self.codes.items()}
        return self.dense | packed | {name: tensor for name, (tensor, _) in self.packed.items()} | self.elastic

    def engine(self, threads: int | None = None) -> Engine:
        return Engine(self.config, self.tensors(), self.ranges, threads=threads)


@dataclass(frozen=True)
class Form:
    """How the matrices of a model are packed; groups as in `PackedTensor`. symmetric: uniform only; terms: binary;
    outliers: per cent of the weights, codebook."""

    scheme: str
    bits: int
    symmetric: bool = False
    group_rows: int | None = None
    group_cols: int | None = None
    terms: int = 1
    outliers: int = 0


def random_packed(rng: np.random.Generator, rows: int, cols: int, form: Form) -> tuple[PackedTensor, Array]:
    """A tensor of that form and its values, exact in float64; they are of the size that `tiny_model` gives others."""
    if form.terms == 2:  # as large as that of one, and a smaller one
        terms = [random_packed(rng, rows, cols, replace(form, terms=1)) for _ in range(2)]
        scales = [terms[0][0].scale, terms[1][0].scale * F32(0.4)]
        codes = np.stack([tensor.codes for tensor, _ in terms])
        tensor = replace(terms[0][0], codes=codes, scale=np.stack(scales))
        return tensor, sum(signs(values) * scale for (_, values), scale in zip(terms, scales, strict=True))
    lowest = 1 if form.symmetric else 0
    codes = rng.integers(lowest, 2**form.bits, (rows, cols))
    table = rng.integers(-128, 128, 2**form.bits).astype(np.int8) if form.scheme == "codebook" else None
    row_groups, col_groups = (
        -(-size // (group or size)) for size, group in ((rows, form.group_rows), (cols, form.group_cols))
    )
    integers = codes - 2.0 ** (form.bits - 1) * form.symmetric if table is None else table[codes].astype(np.float64)
    if form.scheme == "binary":
        integers = 2.0 * codes - 1
    scale = (np.abs(rng.standard_normal((row_groups, col_groups))) * 0.2 + 1) * 1.5 / math.sqrt(cols)
    scale = (scale / (2 ** (form.bits - 1) if table is None else 128)).astype(F32)
    offset = None
    if form.scheme == "uniform" and not form.symmetric:
        offset = (-(2.0 ** (form.bits - 1)) * scale * rng.uniform(0.8, 1.2, scale.shape)).astype(F32)

    def spread(groups: Array) -> Array:
        by_row = groups.repeat(form.group_rows or rows, 0)[:rows]
        return by_row.repeat(form.group_cols or cols, 1)[:, :cols].astype(np.float64)

    values = spread(scale) * integers + (0 if offset is None else spread(offset))
    bits = (codes[:, :, None] >> np.arange(form.bits) & 1).astype(np.uint8).reshape(rows, -1)
    packed = np.packbits(bits, 1, "little")
    groups = (form.group_rows, form.group_cols)
    outliers = None
    if form.outliers:
        positions = np.flatnonzero(rng.random((rows, cols)) < form.outliers / 100)
        numbers = (rng.standard_normal(positions.size) * 3 / math.sqrt(cols)).astype(F32)
        outliers = Outliers.at(positions, numbers, (rows, cols))
        values.flat[positions] = numbers
    return PackedTensor(form.scheme, form.bits, packed, cols, scale, offset, table, "bits", *groups, outliers), values


def packed_ternary(codes: Array, scale: Array, packing: str) -> PackedTensor:
    """Codes in {−1, 0, 1}; one scale a matrix or a row."""
    packed = pack_ternary(codes, packing)
    rows = None if scale.size == 1 else 1
    engine_packing = "trits" if packing == "trits" else "bits"
    return PackedTensor("ternary", 2, packed, codes.shape[1], scale, packing=engine_packing, group_rows=rows)


def linear_names(layers: int, head: str = "linear") -> list[str]:
    parts = [f"attention.{part}" for part in ("query", "key", "value", "output")] + ["ffn.intermediate", "ffn.output"]
    pooler = ["pooler.dense"] if head in POOLED_HEADS else []
    return [f"layers.{i}.{part}" for i in range(layers) for part in parts] + pooler


def tiny_model(
    seed: int = 0,
    *,
    packing: str = "2bit",
    word: str = "row",
    linear: str = "matrix",
    form: Form | None = None,
    word_form: Form | None = None,
    fp32_linears: Sequence[str] = (),
    vocab: int = 53,
    positions: int = 40,
    hidden: int = 24,
    layers: int = 2,
    heads: int = 3,
    head_size: int | None = None,
    intermediate: int = 44,
    labels: int = 3,
    **config: Any,
) -> TinyModel:
    """Random model; with 8-bit activations its linear layers but ``fp32_linears`` are ternary with scales per
    ``linear`` ("row" or "matrix"), and the word embedding with scales per ``word`` (or "fp32": not ternary); ``form``
    and ``word_form`` put another form in the place of the ternary one, which with binary activations is binary.
    Sizes are odd on purpose: no multiple of a vector or a byte. Weights are such that attention is far from uniform."""
    rng = np.random.default_rng(seed)
    engine_config = EngineConfig(
        *(vocab, positions, 2, hidden, layers, heads, intermediate),
        hidden if config.get("head") in POOLINGS else labels,
        **({"layer_norm_eps": 1e-12, "head_size": head_size} | config),
    )
    attention = engine_config.attention_size
    model = TinyModel(engine_config, packing)
    ternary = engine_config.activation_range != "fp32"
    if engine_config.activation_range == "binary":
        binary = Form("binary", 1, group_rows=1)
        form, word_form = form or binary, word_form or binary

    def normal(scale: float, *shape: int) -> Array:
        return (rng.standard_normal(shape) * scale).astype(F32)

    def matrix(name: str, rows: int, cols: int, groups: int, form: Form | None) -> None:
        if form is not None:
            model.packed[name] = _, values = random_packed(rng, rows, cols, form)
            model.dense[name] = values.astype(F32)
            return
        codes = rng.integers(-1, 2, (rows, cols)).astype(np.int8)
        scale = (np.abs(rng.standard_normal(groups)) * 0.2 + 1).astype(F32) * F32(1.5 / math.sqrt(cols))
        model.codes[name] = codes, scale
        model.dense[name] = codes * scale[:, None]

    def norm(name: str, size: int = hidden) -> None:
        model.dense[f"{name}.weight"] = F32(1) + normal(0.1, size)
        model.dense[f"{name}.bias"] = normal(0.1, size)

    embedding = engine_config.embedding_size or hidden
    if ternary and word != "fp32":
        matrix("embeddings.word.weight", vocab, embedding, vocab if word == "row" else 1, word_form)
    else:
        model.dense["embeddings.word.weight"] = normal(1.0, vocab, embedding)
    model.dense["embeddings.position.weight"] = normal(0.5, positions, embedding)
    model.dense["embeddings.token_type.weight"] = normal(0.5, 2, embedding)
    norm("embeddings.norm", embedding)
    if embedding != hidden:
        model.dense["embeddings.projection.weight"] = normal(1 / math.sqrt(embedding), hidden, embedding)
        model.dense["embeddings.projection.bias"] = normal(0.1, hidden)
    for name in linear_names(layers, engine_config.head):
        rows = {"intermediate": intermediate, "output": hidden, "dense": hidden}.get(name.rsplit(".")[-1], attention)
        cols = {"ffn.output": intermediate, "attention.output": attention}.get(name.split(".", 2)[-1], hidden)
        if ternary and name not in fp32_linears:
            matrix(f"{name}.weight", rows, cols, rows if linear == "row" else 1, form)
        else:
            model.dense[f"{name}.weight"] = normal(1.2 / math.sqrt(cols), rows, cols)
        model.dense[f"{name}.bias"] = normal(0.1, rows)
    for i in range(layers):
        norm(f"layers.{i}.attention.norm")
        norm(f"layers.{i}.ffn.norm")
    if engine_config.head not in POOLINGS:
        model.dense["classifier.weight"] = normal(0.3, labels, hidden)
        model.dense["classifier.bias"] = normal(0.1, labels)
    if engine_config.activation_range == "static":
        _choose_ranges(model, rng)
    if engine_config.attention == "softmax":
        _choose_elastic(model, rng)
    return model


def random_batch(model: TinyModel, lengths: Sequence[int], seed: int = 1) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids and types; every second sequence has two segments."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, model.config.vocab_size, n).tolist() for n in lengths]
    types = [[int(s % 2 == 1 and 2 * t >= n) for t in range(n)] for s, n in enumerate(lengths)]
    return ids, types


# --- the encoder ---


def embed(model: TinyModel, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> Array:
    """[N, H]: normalized (word + type) + position, projected where E is not H."""
    flat, flat_types = np.concatenate([*ids]).astype(int), np.concatenate([*types]).astype(int)
    positions = np.concatenate([np.arange(len(row)) for row in ids])
    dense = model.dense
    total = dense["embeddings.word.weight"][flat].astype(np.float64) + dense["embeddings.token_type.weight"][flat_types]
    embedded = norm(model, "embeddings.norm", total + dense["embeddings.position.weight"][positions])
    if "embeddings.projection.weight" not in dense:
        return embedded
    return embedded @ dense["embeddings.projection.weight"].T + dense["embeddings.projection.bias"]


def layer(model: TinyModel, i: int, hidden: Array, lengths: Sequence[int]) -> Array:
    """Layer i on hidden [N, H] of the preceding one."""
    if model.config.activation_range == "binary":
        return binary_layer(model, i, hidden, lengths)[0]
    name = f"layers.{i}"
    parts = ("query", "key", "value")
    query, key, value = (_linear(model, f"{name}.attention.{p}", hidden, f"{name}.attention.input") for p in parts)
    context = np.zeros_like(query)
    d = head_size(model)
    for start, end in zip(np.cumsum([0, *lengths[:-1]]), np.cumsum(lengths), strict=True):
        for head in range(model.config.num_heads):
            part = np.s_[start:end, head * d : (head + 1) * d]
            context[part] = _attention(model, f"{name}.attention", query[part], key[part], value[part])
    output = _linear(model, f"{name}.attention.output", context, f"{name}.attention.context")
    hidden = norm(model, f"{name}.attention.norm", output + hidden)
    up = _activate(model, _linear(model, f"{name}.ffn.intermediate", hidden, f"{name}.ffn.input"))
    down = _linear(model, f"{name}.ffn.output", up, f"{name}.ffn.activation")
    return norm(model, f"{name}.ffn.norm", down + hidden)


def binary_layer(model: TinyModel, i: int, hidden: Array, lengths: Sequence[int]) -> tuple[Array, Array]:
    """Layer i of a binary model of signs on hidden [N, H] → its output [N, H], and [N] the smallest size of a number
    whose sign decides something about that token: below the rounding of fp32 the engine may decide either way.

    Between two LayerNorms everything is exact: scales and biases are fp32 numbers, sums of a few hundred of them in
    float64 do not round.
    """
    name = f"layers.{i}"
    parts = ("query", "key", "value")
    query, key, value = (signs(_linear(model, f"{name}.attention.{p}", hidden, "")) for p in parts)
    context = np.zeros_like(query)
    d = head_size(model)
    for start, end in zip(np.cumsum([0, *lengths[:-1]]), np.cumsum(lengths), strict=True):
        for head in range(model.config.num_heads):
            part = np.s_[start:end, head * d : (head + 1) * d]
            attended = (query[part] @ key[part].T >= 0) | (model.config.attention == "all")
            context[part] = attended.astype(np.float64) @ value[part]
    output = _linear(model, f"{name}.attention.output", context, "")
    middle = norm(model, f"{name}.attention.norm", output + hidden)
    # The activation function keeps signs, so it has no part here.
    up = _linear(model, f"{name}.ffn.intermediate", middle, "")
    down = _linear(model, f"{name}.ffn.output", up, "")
    return norm(model, f"{name}.ffn.norm", down + middle), np.abs(middle).min(1)


def head_size(model: TinyModel) -> int:
    """d."""
    return model.config.attention_size // model.config.num_heads


def classify(model: TinyModel, hidden: Array, lengths: Sequence[int]) -> Array:
    """Logits of the last hidden states [N, H]: [B, C], or with head "tokens" [N, C]; vectors [B, H] where they are
    pooled."""
    if model.config.head in POOLINGS:
        pool = {"mean": lambda x: x.mean(0), "cls": lambda x: x[0], "max": lambda x: x.max(0)}[model.config.head]
        return np.array([pool(part.astype(np.float64)) for part in np.split(hidden, np.cumsum(lengths)[:-1])])
    if model.config.head == "tokens":
        return _class_scores(model, hidden)
    first = hidden[np.cumsum([0, *lengths[:-1]])]
    return logits_of(model, _linear(model, "pooler.dense", first, "pooler.input"))


def logits_of(model: TinyModel, pooler: Array) -> Array:
    """Logits [B, C] of the outputs [B, H] of the pooler's linear."""
    match model.config.head:
        case "linear":
            pooled = np.tanh(pooler)
        case "relu":
            pooled = np.maximum(np.tanh(pooler), 0)
        case "dense_relu":
            pooled = np.maximum(pooler, 0)
        case _:
            pooled = _gelu(pooler)
    return _class_scores(model, pooled)


def _class_scores(model: TinyModel, features: Array) -> Array:
    return features @ model.dense["classifier.weight"].T.astype(np.float64) + model.dense["classifier.bias"]


def hidden_states(model: TinyModel, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> list[Array]:
    """L+1 arrays [N, H], each layer on the oracle's own previous state."""
    lengths = [len(row) for row in ids]
    states = [embed(model, ids, types)]
    for i in range(model.config.num_layers):
        states.append(layer(model, i, states[-1], lengths))
    return states


def quantize(
    model: TinyModel, point: str, x: Array, per_block: bool = False, nonnegative: bool = False
) -> tuple[Array, Array, Array]:
    """Codes (float64 integers) of x [rows, cols], scale and offset float32 [rows, 1] or [1, 1]."""
    config = model.config
    x = x.astype(F32)
    highest, middle = highest_code(config), 2 ** (config.activation_bits - 1)
    if config.activation_clip and not nonnegative:
        x = np.clip(x, F32(-config.activation_clip), F32(config.activation_clip))
    axis = None if per_block else 1
    low, high = x.min(axis, keepdims=True), x.max(axis, keepdims=True)
    if config.activation_range == "static":
        scale, offset = (np.full_like(low, number) for number in model.ranges[point])
        zero = np.zeros_like(offset) if config.activation_symmetric else offset
    elif nonnegative:
        scale = high / F32(highest)
        offset = zero = np.zeros_like(low)
    elif config.activation_symmetric:
        scale, zero = np.maximum(-low, high) / F32(highest), np.zeros_like(low)
        offset = F32(-middle) * np.where(scale > 0, scale, F32(1))
    else:
        scale, offset = (high - low) / F32(highest), low
        zero = low
    scale = np.where(scale > 0, scale, F32(1))
    steps = np.rint((x - zero) / scale)
    if config.activation_symmetric and not nonnegative:
        codes = np.clip(steps, -highest, highest) + middle
    else:
        codes = np.clip(steps, 0, highest)
    return codes.astype(np.float64), scale, offset


def highest_code(config: EngineConfig) -> int:
    """255 or 15; symmetric, from the middle: 127 or 7."""
    return int(2 ** (config.activation_bits - config.activation_symmetric)) - 1


def _linear(model: TinyModel, name: str, x: Array, point: str) -> Array:
    bias = model.dense[f"{name}.bias"].astype(np.float64)
    if model.config.activation_range == "binary":
        return signs(x) @ model.packed[f"{name}.weight"][1].T + bias
    if f"{name}.weight" in model.packed:
        return _rounded(*quantize(model, point, x)) @ model.packed[f"{name}.weight"][1].T + bias
    if f"{name}.weight" not in model.codes:
        return x @ model.dense[f"{name}.weight"].T.astype(np.float64) + bias
    codes, alpha = model.codes[f"{name}.weight"]
    q, scale, offset = quantize(model, point, x)
    b = codes.astype(np.float64)
    return (scale * alpha).astype(np.float64) * (q @ b.T) + (offset * alpha) * b.sum(1) + bias


def signs(x: Array) -> Array:
    return np.where(x >= 0, 1.0, -1.0)


def _attention(model: TinyModel, name: str, query: Array, key: Array, value: Array) -> Array:
    """Context [T, d] of one head of one sequence."""
    if model.config.activation_range != "fp32":
        query = _rounded(*quantize(model, f"{name}.query_states", query))
        key = _rounded(*quantize(model, f"{name}.key_states", key))
        value = _rounded(*quantize(model, f"{name}.value_states", value, per_block=True))
    scores = query @ key.T / math.sqrt(query.shape[1])
    weights = np.exp(scores - scores.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    if model.config.activation_range != "fp32":
        weights = _rounded(*quantize(model, f"{name}.probabilities", weights, nonnegative=True))
    return weights @ value


def _rounded(codes: Array, scale: Array, offset: Array) -> Array:
    return scale.astype(np.float64) * codes + offset


def norm(model: TinyModel, name: str, x: Array) -> Array:
    centred = x - x.mean(1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(1, keepdims=True) + model.config.layer_norm_eps)
    return centred / deviation * model.dense[f"{name}.weight"] + model.dense[f"{name}.bias"]


def _activate(model: TinyModel, x: Array) -> Array:
    match model.config.hidden_act:
        case "gelu":
            return _gelu(x)
        case "gelu_new" | "gelu_pytorch_tanh":
            return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        case "relu":
            return np.maximum(x, 0)
        case _:
            return x / (1 + np.exp(-x))


def _gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _choose_ranges(model: TinyModel, rng: np.random.Generator) -> None:
    """Ranges of every point that roughly fit it, a little narrow, so that saturation is tested as well."""
    for i in range(model.config.num_layers):
        for part in ("attention.input", "attention.query_states", "attention.key_states", "attention.value_states"):
            _choose_range(model, f"layers.{i}.{part}", -1.7, 1.9, rng)
        for part in ("attention.context", "ffn.input"):
            _choose_range(model, f"layers.{i}.{part}", -1.8, 2.1, rng)
        _choose_range(model, f"layers.{i}.ffn.activation", -0.17, 2.5, rng)
        top = F32(0.6) / F32(highest_code(model.config))
        model.ranges[f"layers.{i}.attention.probabilities"] = float(top), 0.0
    if model.config.head in POOLED_HEADS:
        _choose_range(model, "pooler.input", -1.9, 2.0, rng)


def _choose_range(model: TinyModel, point: str, low: float, high: float, rng: np.random.Generator) -> None:
    low, high = low * rng.uniform(0.9, 1.1), high * rng.uniform(0.9, 1.1)
    highest = F32(highest_code(model.config))
    if model.config.activation_symmetric:
        scale = F32(max(-low, high)) / highest
        model.ranges[point] = float(scale), float(-(highest + F32(1)) * scale)
    else:
        model.ranges[point] = float((F32(high) - F32(low)) / highest), float(F32(low))


def _choose_elastic(model: TinyModel, rng: np.random.Generator) -> None:
    """Scales and shifts such that every bit is sometimes 0 and sometimes 1."""
    hf = {
        "hidden_size": model.config.hidden_size,
        "num_attention_heads": model.config.num_heads,
        "attention_head_size": head_size(model),
        "intermediate_size": model.config.intermediate_size,
        "num_hidden_layers": model.config.num_layers,
        "head": model.config.head,
    }
    for name, shape in elastic_entries(hf).items():
        if name.endswith(".shift"):
            # A context counts a few attended keys, worth 0.1 each; other inputs are spread over (-2, 2).
            deviation = 0.1 if "attention.output" in name else 0.4
            model.elastic[name] = (rng.standard_normal(shape) * deviation).astype(F32)
        elif "probabilities" in name:
            model.elastic[name] = rng.uniform(0.05, 0.2, shape).astype(F32)
        else:
            model.elastic[name] = rng.uniform(0.6, 1.4, shape).astype(F32)
