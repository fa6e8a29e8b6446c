"""Small artifacts for the tests, made of hashed numbers: the same on every machine and with every numpy.

Sizes are odd on purpose: 22 and 37 columns leave padding in the last byte of a row in every layout of codes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitpress.artifact import (
    ActivationSpec,
    ArtifactConfig,
    ArtifactError,
    BinaryTensor,
    CodebookTensor,
    Outliers,
    SpanSpec,
    StoredTensor,
    TaskSpec,
    TensorSpec,
    TernaryTensor,
    UniformTensor,
    activation_points,
    elastic_entries,
    expected_tensors,
    read_artifact,
    write_artifact,
)
from bitpress.artifact.model_config import has_pooler

QUERY = "layers.0.attention.query.weight"
TOKENIZER = b'{"version": "1.0", "model": {"type": "WordPiece", "vocab": {}}}'


def hf_config(**changes: Any) -> dict[str, Any]:
    """A BERT config as transformers writes it, tiny."""
    config: dict[str, Any] = {
        "architectures": ["BertForSequenceClassification"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 22,
        "id2label": {"0": "negative", "1": "neutral", "2": "positive"},
        "initializer_range": 0.02,
        "intermediate_size": 37,
        "label2id": {"negative": 0, "neutral": 1, "positive": 2},
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 33,
        "model_type": "bert",
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "vocab_size": 61,
    }
    config.update(changes)
    return {key: value for key, value in config.items() if value is not ...}


def ternary_names(model: dict[str, Any]) -> list[str]:
    """What the recipe ternarybert ternarizes: word embedding, all layer matrices, pooler if any (spec: 2-2-8)."""
    parts = [
        "attention.query",
        "attention.key",
        "attention.value",
        "attention.output",
        "ffn.intermediate",
        "ffn.output",
    ]
    layers = [f"layers.{n}.{part}.weight" for n in range(model["num_hidden_layers"]) for part in parts]
    return ["embeddings.word.weight", *layers, *(["pooler.dense.weight"] if has_pooler(model) else [])]


def make_config(
    packing: str = "2bit",
    group: str = "matrix",
    activations: ActivationSpec | None = None,
    task: TaskSpec | None = None,
    model: dict[str, Any] | None = None,
    max_length: int = 32,
) -> ArtifactConfig:
    """Word embedding in rows, every other matrix in ``group``."""
    model = hf_config() if model is None else model
    tensors = {name: TensorSpec.fp32(shape) for name, shape in expected_tensors(model).items()}
    for name in ternary_names(model):
        rows = "row" if name == "embeddings.word.weight" else group
        tensors[name] = TensorSpec.ternary(tensors[name].shape, packing, rows)
    activations = activations or ActivationSpec()
    task = task or TaskSpec("classification", "accuracy", False)
    return ArtifactConfig(model, "ternarybert", activations, task, max_length, tensors)


def make_tokens_config(activations: ActivationSpec | None = None) -> ArtifactConfig:
    """A classifier of tokens, which has no pooler."""
    model = hf_config(
        architectures=["BertForTokenClassification"],
        head="tokens",
        id2label={"0": "O", "1": "B-thing", "2": "I-thing"},
        label2id={"O": 0, "B-thing": 1, "I-thing": 2},
    )
    return make_config(activations=activations, task=TaskSpec("token_classification", "entity_f1", False), model=model)


def make_spans_config() -> ArtifactConfig:
    """A model of question answering, with values of its own for all that it says about spans."""
    model = hf_config(
        architectures=["BertForQuestionAnswering"],
        head="tokens",
        id2label={"0": "start", "1": "end"},
        label2id={"start": 0, "end": 1},
    )
    task = TaskSpec("question_answering", "f1", True, SpanSpec(96, 48, 20, -1.5))
    return make_config(task=task, model=model)


def make_embedding_config(activations: ActivationSpec | None = None) -> ArtifactConfig:
    """An encoder of sentences, which has neither pooler nor classifier."""
    model = hf_config(architectures=["BertModel"], head="mean", id2label=..., label2id=..., problem_type=...)
    return make_config(
        activations=activations, task=TaskSpec("embedding", "spearman", False, normalize=True), model=model
    )


def make_mixed_config(activations: ActivationSpec | None = None) -> ArtifactConfig:
    """Every scheme but binary, every number of bits and every group at least once, on 8-bit activations; fp16 where it
    is usual.

    ``ffn.output`` has 37 inputs, so its groups of 32 inputs are one whole and one of 5.
    """
    config = make_config(activations=activations)
    model = config.model
    shapes = expected_tensors(model)
    first, second = "layers.0.attention", "layers.1.attention"

    def uniform(bits: int, symmetric: bool, group: str, size: int | None = None) -> Callable[..., TensorSpec]:
        return lambda shape: TensorSpec.uniform(shape, bits, symmetric, group, size)

    forms: dict[str, Callable[..., TensorSpec]] = {
        "embeddings.word.weight": uniform(8, False, "row"),
        f"{first}.query.weight": uniform(8, True, "row"),
        f"{first}.key.weight": uniform(8, True, "matrix"),
        f"{first}.value.weight": uniform(4, True, "row_block", 5),
        f"{first}.output.weight": uniform(4, False, "row_block", 22),
        "layers.0.ffn.intermediate.weight": uniform(3, True, "input", 32),
        "layers.0.ffn.output.weight": uniform(3, False, "input", 32),
        f"{second}.query.weight": uniform(2, False, "input", 64),
        f"{second}.key.weight": uniform(2, True, "matrix"),
        f"{second}.value.weight": lambda shape: TensorSpec.codebook(shape, 4, "row"),
        f"{second}.output.weight": lambda shape: TensorSpec.codebook(shape, 2, "matrix"),
        "layers.1.ffn.intermediate.weight": lambda shape: TensorSpec.codebook(shape, 3, "row"),
        "layers.1.ffn.output.weight": lambda shape: TensorSpec.ternary(shape, "trits", "row"),
        "pooler.dense.weight": uniform(8, True, "row"),
        "embeddings.position.weight": TensorSpec.fp16,
        "embeddings.token_type.weight": TensorSpec.fp16,
        **{name: TensorSpec.fp16 for name in shapes if name.endswith(".bias") or ".norm." in name},
    }
    tensors = {name: forms.get(name, TensorSpec.fp32)(shape) for name, shape in shapes.items()}
    return ArtifactConfig(model, "mixed", config.activations, config.task, config.max_length, tensors)


def make_binary_config(attention: str = "bool") -> ArtifactConfig:
    """A fully binarized encoder: matrices and word embedding binary, with scales of both widths and both groups."""
    model = hf_config(hidden_act="relu" if attention == "softmax" else "gelu")
    config = make_config(activations=ActivationSpec("binary", 1, attention=attention), model=model)
    for name, spec in config.tensors.items():
        if spec.scheme == "ternary":
            group, scale_bits = ("matrix", 32) if name == QUERY else ("row", 16 if "layers.1" in name else 32)
            config.tensors[name] = TensorSpec.binary(spec.shape, group, scale_bits)
        elif name != "classifier.weight":
            config.tensors[name] = TensorSpec.fp16(spec.shape)
    recipe = "bit" if attention == "softmax" else "bibert"
    return ArtifactConfig(config.model, recipe, config.activations, config.task, config.max_length, config.tensors)


def make_binarybert_config() -> ArtifactConfig:
    """Binary matrices of one and of two terms beside others, on 4-bit activations with static ranges; of the attention
    heads two are left, of 7 columns, in a hidden size of 22."""
    model = hf_config(attention_head_size=7)
    config = make_config("trits", "row", ActivationSpec(bits=4, range="static"), model=model)
    terms = {"embeddings.word.weight": 2, QUERY: 2, "layers.0.attention.key.weight": 1, "layers.1.ffn.output.weight": 2}
    for name, number in terms.items():
        group = "matrix" if name == QUERY else "row"
        shape = config.tensors[name].shape
        config.tensors[name] = TensorSpec.binary(shape, group, 16 if "layers.1" in name else 32, number)
    return ArtifactConfig(
        config.model, "binarybert", config.activations, config.task, config.max_length, config.tensors
    )


def make_gobo_config() -> ArtifactConfig:
    """Codebooks a matrix, with outliers; layers.0.attention.key has none."""
    config = make_config()
    for i, (name, spec) in enumerate(config.tensors.items()):
        if spec.scheme == "ternary":
            outliers = 0 if name == "layers.0.attention.key.weight" else 3 + i
            bits = 4 if name == "embeddings.word.weight" else 3
            config.tensors[name] = TensorSpec.codebook(spec.shape, bits, "matrix", outliers)
    return ArtifactConfig(config.model, "gobo", config.activations, config.task, config.max_length, config.tensors)


def make_tensors(config: ArtifactConfig) -> dict[str, StoredTensor]:
    """Values that are exact in fp32 and fp16: multiples of 1/256 below 1 in size, scales from 1/256 to 1."""
    return {name: _make_tensor(name, spec) for name, spec in config.tensors.items()}


def _make_tensor(name: str, spec: TensorSpec) -> StoredTensor:
    raw = _bytes(name, spec.shape if spec.is_float else spec.codes_shape).astype(np.int64)
    if spec.is_float:
        return ((raw.astype(np.float32) - 128) / 256).astype(np.float16 if spec.scheme == "fp16" else np.float32)
    scale = ((_bytes(f"{name}.scale", spec.scale_shape).astype(np.float32) + 1) / 256).astype(np.float32)
    if spec.scheme == "ternary":
        return TernaryTensor((raw % 3).astype(np.int8) - np.int8(1), scale)
    if spec.scheme == "binary":
        return BinaryTensor(
            (raw % 2).astype(np.int8) * np.int8(2) - np.int8(1),
            scale.astype(np.float16) if spec.scale_bits == 16 else scale,
        )
    levels = 2**spec.code_bits
    if spec.scheme == "codebook":
        table = _bytes(f"{name}.table", (levels,)).view(np.int8)
        return CodebookTensor((raw % levels).astype(np.uint8), table, scale, _make_outliers(name, spec))
    assert spec.group is not None
    offset = None
    if not spec.symmetric:
        offset = (_bytes(f"{name}.offset", spec.scale_shape).astype(np.float32) - 128) / np.float32(16)
    codes = raw % (levels - 1) + 1 if offset is None else raw % levels
    return UniformTensor(codes.astype(np.uint8), scale, offset, spec.code_bits, spec.group, spec.group_size)


def _make_outliers(name: str, spec: TensorSpec) -> Outliers | None:
    """At the places of the largest hashed numbers; multiples of 1/256 from 1 to 2 in size."""
    number = spec.outliers or 0
    order = _bytes(f"{name}.places", spec.shape).reshape(-1).argsort(kind="stable")
    raw = _bytes(f"{name}.outliers", (number,)).astype(np.float32)
    values = ((raw + 256) / 256 * np.where(raw % 2, 1, -1)).astype(np.float32)
    return Outliers.at(np.sort(order[order.size - number :]), values, (spec.shape[0], spec.shape[1]))


def make_ranges(config: ArtifactConfig) -> dict[str, tuple[float, float]]:
    """Static ranges that keep the rules: probabilities from 0, symmetric ones around the code in the middle."""
    if config.activations.scheme != "uniform" or config.activations.range != "static":
        return {}
    ranges = {}
    for point, kind in activation_points(config.model).items():
        scale = (int(_bytes(point, (1,))[0]) + 1) / 4096
        middle = 2 ** (config.activations.bits - 1)
        offset = 0.0 if kind == "probabilities" else -middle * scale if config.activations.symmetric else -100 * scale
        ranges[point] = (scale, offset)
    return ranges


def make_elastic(config: ArtifactConfig) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Scales from 1/128 to 2, shifts from −1/2 to 1/2."""
    if not config.activations.is_elastic:
        return {}
    numbers = {}
    for name, shape in elastic_entries(config.model).items():
        raw = _bytes(name, shape).astype(np.float32)
        numbers[name] = (raw - 128) / np.float32(256) if name.endswith(".shift") else (raw + 1) / np.float32(128)
    return numbers


def write_sample(
    path: Path, config: ArtifactConfig | None = None, tokenizer: bytes = TOKENIZER, **changes: Any
) -> ArtifactConfig:
    """Write a valid artifact; returns its config."""
    config = config or make_config(**changes)
    files = {"tokenizer.json": tokenizer}
    provenance = {"recipe": "ternarybert", "seed": 1}
    values = make_tensors(config), make_ranges(config)
    write_artifact(path, config, *values, files, "# sample\n", provenance, make_elastic(config))
    return config


def edit_config(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Apply ``change`` to the parsed config.json."""
    document = json.loads((path / "config.json").read_text())
    change(document)
    (path / "config.json").write_text(json.dumps(document))


def quantization(document: dict[str, Any]) -> dict[str, Any]:
    """bitpress's part of config.json."""
    part: dict[str, Any] = document["quantization_config"]
    return part


def refused(path: Path, match: str) -> ArtifactError:
    """The error that reading ``path`` must give."""
    with pytest.raises(ArtifactError, match=match) as caught:
        read_artifact(path)
    return caught.value


def split_container(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of model.safetensors, by the format's definition."""
    content = (path / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_container(path: Path, header: dict[str, Any] | bytes, data: bytes) -> None:
    """Write model.safetensors from a header (padded to 8) and data, whatever they say."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


def edit_header(path: Path, change: Callable[[dict[str, Any]], Any], extra: bytes = b"") -> None:
    """Apply ``change`` to the header, keep the data, append ``extra``."""
    header, data = split_container(path)
    change(header)
    join_container(path, header, data + extra)


def edit_entry(path: Path, entry: str, change: Callable[[np.ndarray[Any, Any]], Any]) -> None:
    """Apply ``change`` to the array of one entry, in place."""
    header, data = split_container(path)
    content = bytearray(data)
    begin, end = header[entry]["data_offsets"]
    dtype = {"F32": "<f4", "F16": "<f2", "U16": "<u2", "I8": "i1", "U8": "u1"}[header[entry]["dtype"]]
    change(np.frombuffer(memoryview(content)[begin:end], dtype))
    join_container(path, header, bytes(content))


def _bytes(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(hashlib.shake_256(name.encode()).digest(int(np.prod(shape))), np.uint8).reshape(shape)
