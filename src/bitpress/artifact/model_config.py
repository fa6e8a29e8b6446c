"""The Hugging Face part of config.json, checked and bounded; the names and shapes of tensors that follow from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from bitpress.artifact.strict_json import shown
from bitpress.errors import ArtifactError
from bitpress.families import FAMILIES, HEADS, POOLED_HEADS, POOLINGS

# Bounds far above any BERT (large: 1,024 hidden, 24 layers). Any tensor then has at most 2^22 · 2^14 = 2^36 elements,
# so sizes in bytes fit 64 bits with room to spare, in Python and in the engine.
LIMITS = {
    "hidden_size": 1 << 14,
    "num_hidden_layers": 256,
    "num_attention_heads": 1 << 10,
    "intermediate_size": 1 << 16,
    "vocab_size": 1 << 22,
    "max_position_embeddings": 1 << 16,
    "type_vocab_size": 1 << 10,
}
# Of embedding_size, which may be absent, as hidden_size.
MAX_EMBEDDING_SIZE = 1 << 14
# Of attention_head_size, which may be absent, and of all heads together: as hidden_size and intermediate_size.
MAX_HEAD_SIZE = 1 << 14
MAX_ATTENTION_SIZE = 1 << 16
MAX_LABELS = 1 << 15
MAX_LABEL_LENGTH = 1 << 10
POSITIONS = "embeddings.position.weight"
ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu", "swish")


def check_model(model: Mapping[str, Any], where: str = "config.json") -> None:
    """The model is an encoder that the engine runs, of bounded size.

    Keys that change neither shape nor result (dropout, ``architectures``, ``transformers_version``, …) are not read.

    Raises:
        ArtifactError: names the key, what was found and what is allowed.
    """
    # Where the encoder comes from. All are the same model here, with sizes under BERT's names.
    if model.get("model_type") not in tuple(FAMILIES):
        raise ArtifactError(
            f"{where}: model_type is {shown(model.get('model_type'))}; the engine runs {', '.join(sorted(FAMILIES))}"
        )
    for key, high in LIMITS.items():
        check_int(model.get(key), 1, high, f"{where}: {key}")
    if "embedding_size" in model:
        check_int(model["embedding_size"], 1, MAX_EMBEDDING_SIZE, f"{where}: embedding_size")
    _check_heads(model, where)
    act = model.get("hidden_act", "gelu")
    if act not in ACTIVATIONS:
        raise ArtifactError(f"{where}: hidden_act is {shown(act)}; the engine runs {', '.join(ACTIVATIONS)}")
    head = model.get("head", "linear")
    if head not in HEADS:
        raise ArtifactError(f"{where}: head is {shown(head)}; the engine runs {', '.join(HEADS)}")
    position = model.get("position_embedding_type", "absolute")
    if position != "absolute":
        raise ArtifactError(f"{where}: position_embedding_type is {shown(position)}; only 'absolute' can be run")
    epsilon = model.get("layer_norm_eps", 1e-12)
    if not is_number(epsilon) or not 0 < epsilon <= 1:
        raise ArtifactError(f"{where}: layer_norm_eps is {shown(epsilon)}; a number above 0 and at most 1 is expected")
    for key in ("is_decoder", "add_cross_attention", "pruned_heads"):
        if model.get(key):  # absent, null, false and {} all say that this is not used
            raise ArtifactError(f"{where}: {key} is {shown(model[key])}; only plain encoders can be run: leave it out")
    problem = model.get("problem_type")
    if problem not in (None, "single_label_classification", "multi_label_classification", "regression"):
        raise ArtifactError(
            f"{where}: problem_type is {shown(problem)}; allowed are null, 'single_label_classification', "
            "'multi_label_classification' and 'regression'"
        )
    labels_of(model, where)


def _check_heads(model: Mapping[str, Any], where: str) -> None:
    hidden, heads = model["hidden_size"], model["num_attention_heads"]
    if "attention_head_size" not in model:
        if hidden % heads:
            raise ArtifactError(
                f"{where}: hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and there is no "
                "attention_head_size"
            )
        return
    size = check_int(model["attention_head_size"], 1, MAX_HEAD_SIZE, f"{where}: attention_head_size")
    if heads * size > MAX_ATTENTION_SIZE:
        raise ArtifactError(
            f"{where}: num_attention_heads {heads} of attention_head_size {size} have {heads * size} columns; at most "
            f"{MAX_ATTENTION_SIZE} are allowed"
        )


def has_pooler(model: Mapping[str, Any]) -> bool:
    """Whether a classifier reads a pooler; otherwise one reads every token, or there is none. Argument as
    `head_size`."""
    return model.get("head", "linear") in POOLED_HEADS


def gives_vectors(model: Mapping[str, Any]) -> bool:
    """Whether a text's answer is its pooled last hidden states, without a classifier. Argument as `head_size`."""
    return model.get("head", "linear") in POOLINGS


def embedding_size(model: Mapping[str, Any]) -> int:
    """E, the columns of the embeddings; where they are not hidden_size, a linear leads from one to the other.

    Args:
        model: the Hugging Face part of a checked config.
    """
    return int(model.get("embedding_size", model["hidden_size"]))


def head_size(model: Mapping[str, Any]) -> int:
    """Columns of one attention head; all heads together need not have hidden_size of them.

    Args:
        model: the Hugging Face part of a checked config.
    """
    return int(model.get("attention_head_size", model["hidden_size"] // model["num_attention_heads"]))


def attention_size(model: Mapping[str, Any]) -> int:
    """A, the columns of all attention heads. Argument as `head_size`."""
    return int(model["num_attention_heads"]) * head_size(model)


def labels_of(model: Mapping[str, Any], where: str = "config.json") -> list[str]:
    """Label names by class id, as transformers derives them: from id2label, else num_labels (default 2) × LABEL_i.
    Where there is no classifier, none.

    Raises:
        ArtifactError: ids that are not 0 … C−1, names that are not distinct short strings, another num_labels.
    """
    if gives_vectors(model):
        return []
    count = model.get("num_labels")
    if count is not None:
        check_int(count, 1, MAX_LABELS, f"{where}: num_labels")
    table = model.get("id2label")
    if table is None:
        return [f"LABEL_{i}" for i in range(2 if count is None else count)]
    if not isinstance(table, dict) or not 1 <= len(table) <= MAX_LABELS:
        raise ArtifactError(f"{where}: id2label must be an object of 1 to {MAX_LABELS} names by class id")
    if count is not None and count != len(table):
        raise ArtifactError(f"{where}: num_labels is {count} but id2label has {len(table)} names; remove one of them")
    by_id = {str(key): name for key, name in table.items()}  # Python configs hold integer keys, JSON strings
    labels = []
    for i in range(len(table)):
        name = by_id.get(str(i))
        if not isinstance(name, str) or len(name) > MAX_LABEL_LENGTH:
            raise ArtifactError(
                f"{where}: id2label[{str(i)!r}] is {shown(name)}; ids run from 0 to {len(table) - 1}, each with a "
                f"name of at most {MAX_LABEL_LENGTH} characters"
            )
        labels.append(name)
    if len(set(labels)) != len(labels):
        twice = Counter(labels).most_common(1)[0][0]
        raise ArtifactError(f"{where}: id2label names {shown(twice)} twice; labels must be distinct")
    return labels


def expected_tensors(model: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model under its canonical name, with its shape, re-derived from the Hugging Face config.

    Raises:
        ArtifactError: a model that the engine does not run, see `check_model`.
    """
    check_model(model)
    h, a, i = model["hidden_size"], attention_size(model), model["intermediate_size"]
    e = embedding_size(model)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word.weight": (model["vocab_size"], e),
        POSITIONS: (model["max_position_embeddings"], e),
        "embeddings.token_type.weight": (model["type_vocab_size"], e),
        "embeddings.norm.weight": (e,),
        "embeddings.norm.bias": (e,),
    }
    if e != h:
        shapes |= {"embeddings.projection.weight": (h, e), "embeddings.projection.bias": (h,)}
    for n in range(model["num_hidden_layers"]):
        attention, ffn = f"layers.{n}.attention", f"layers.{n}.ffn"
        for part in ("query", "key", "value"):
            shapes |= {f"{attention}.{part}.weight": (a, h), f"{attention}.{part}.bias": (a,)}
        shapes |= {f"{attention}.output.weight": (h, a), f"{attention}.output.bias": (h,)}
        shapes |= {f"{attention}.norm.weight": (h,), f"{attention}.norm.bias": (h,)}
        shapes |= {f"{ffn}.intermediate.weight": (i, h), f"{ffn}.intermediate.bias": (i,)}
        shapes |= {f"{ffn}.output.weight": (h, i), f"{ffn}.output.bias": (h,)}
        shapes |= {f"{ffn}.norm.weight": (h,), f"{ffn}.norm.bias": (h,)}
    classes = len(labels_of(model))
    if has_pooler(model):
        shapes |= {"pooler.dense.weight": (h, h), "pooler.dense.bias": (h,)}
    if not gives_vectors(model):
        shapes |= {"classifier.weight": (classes, h), "classifier.bias": (classes,)}
    return shapes


def is_layer_matrix(name: str) -> bool:
    """Whether this tensor is a matrix of a layer."""
    return name.startswith("layers.") and name.endswith(".weight") and ".norm." not in name


def can_be_quantized(name: str) -> bool:
    """Whether this tensor may be stored in every scheme: word embedding, every layer's matrices, pooler."""
    return is_layer_matrix(name) or name in ("embeddings.word.weight", "pooler.dense.weight")


def enters_a_product(name: str) -> bool:
    """Whether this tensor is a matrix that quantized activations are multiplied by: every layer's, and the pooler's."""
    return can_be_quantized(name) and name != "embeddings.word.weight"


def activation_points(model: Mapping[str, Any]) -> dict[str, str]:
    """Every place where activations are quantized, with its kind: rows, head_rows, head_block or probabilities."""
    points: dict[str, str] = {}
    for n in range(model["num_hidden_layers"]):
        points |= {
            f"layers.{n}.attention.input": "rows",
            f"layers.{n}.attention.query_states": "head_rows",
            f"layers.{n}.attention.key_states": "head_rows",
            f"layers.{n}.attention.probabilities": "probabilities",
            f"layers.{n}.attention.value_states": "head_block",
            f"layers.{n}.attention.context": "rows",
            f"layers.{n}.ffn.input": "rows",
            f"layers.{n}.ffn.activation": "rows",
        }
    return points | ({"pooler.input": "rows"} if has_pooler(model) else {})


def check_int(value: Any, low: int, high: int, what: str) -> int:
    """``value`` if it is an integer (not a boolean) within the bounds, ArtifactError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ArtifactError(f"{what} is {shown(value)}; an integer from {low} to {high} is expected")
    return value


def is_number(value: Any) -> bool:
    """A finite JSON number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
