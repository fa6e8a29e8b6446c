"""config.json of an artifact: the encoder's own config plus ``quantization_config``, as dataclasses and back.

`parse_config` is the one place where a document becomes an `ArtifactConfig`; the writer passes through it as well, so
nothing can be written that would not be read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bitpress.artifact import stored
from bitpress.artifact.elastic import elastic_entries
from bitpress.artifact.model_config import (
    activation_points,
    attention_size,
    check_int,
    check_model,
    embedding_size,
    enters_a_product,
    expected_tensors,
    gives_vectors,
    head_size,
    is_number,
    labels_of,
)
from bitpress.artifact.strict_json import shown
from bitpress.artifact.tensor_spec import TensorSpec, parse_spec, spec_document
from bitpress.errors import ArtifactError
from bitpress.families import POOLED_HEADS, POOLINGS

__all__ = [
    "ActivationSpec",
    "ArtifactConfig",
    "SpanSpec",
    "TaskSpec",
    "TensorSpec",
    "activation_points",
    "config_document",
    "elastic_entries",
    "expected_entries",
    "expected_tensors",
    "parse_config",
    "task_document",
]

VERSION = 1
UNIFORM_BITS = (8, 4)
RANGES = ("token", "static")
ATTENTIONS = ("bool", "all", "softmax")
# With the heads that each goes with.
TASK_KINDS = {
    "classification": POOLED_HEADS,
    "regression": POOLED_HEADS,
    "multilabel": POOLED_HEADS,
    "token_classification": ("tokens",),
    "question_answering": ("tokens",),
    "embedding": POOLINGS,
}
# What a kind of task has to say besides `kind`, `metric` and `pair`.
_TASK_KEYS = {"multilabel": ("threshold",), "question_answering": ("spans",), "embedding": ("normalize",)}
# The problem_type that transformers has for a kind; of others it is single_label_classification.
_PROBLEM_TYPES = {"regression": "regression", "multilabel": "multi_label_classification"}
MAX_CLIP = 1e6  # clips in use are near 2.5; the bound keeps (2·clip)/255 and its products far from overflow
MAX_SPAN = 1 << 16  # tokens; no model has as many positions
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _./+-]{0,99}")

_TOP = {"quant_method", "version", "recipe", "activations", "max_length", "task", "tensors"}


@dataclass(frozen=True)
class ActivationSpec:
    """How activations are quantized. ``scheme`` "fp32" (then nothing else matters), "uniform" with 8 bits or 4, or
    "binary".

    ``range``, of "uniform": "token" (dynamic, from the text alone) or "static" (one stored range a point). ``clip``:
    None or the bound c of min(max(x, −c), c).

    "binary" is a fully binarized encoder; ``attention`` says which. "bool" (BiBERT): signs, and a query attends to keys
    whose score is ≥ 0. "all": the same, but to every key, which is sgn(softmax(scores)). "softmax" (BiT): bits with
    stored scales and shifts (`elastic_entries`), and keys whose probability is at least half of its scale.
    """

    scheme: str = "uniform"
    bits: int = 8
    symmetric: bool = False
    range: str = "token"
    clip: float | None = None
    attention: str = "bool"

    @property
    def is_elastic(self) -> bool:
        """Bits have stored scales and shifts."""
        return self.scheme == "binary" and self.attention == "softmax"


@dataclass(frozen=True)
class SpanSpec:
    """How a model that answers questions reads a long context and finds answers in it (docs/qa.md).

    doc_stride           tokens from the start of one window of the context to that of the next
    max_query_length     tokens of a question that are read
    max_answer_length    tokens of the longest answer
    no_answer_threshold  the margin of no answer over the best one above which the model gives none; None: it always
                         answers

    The defaults are those of Devlin et al. 2018 (run_squad.py).
    """

    doc_stride: int = 128
    max_query_length: int = 64
    max_answer_length: int = 30
    no_answer_threshold: float | None = None


@dataclass(frozen=True)
class TaskSpec:
    """``kind``, one of ``TASK_KINDS``; ``metric`` is the one the recipe selected by; ``pair``: two texts.

    ``spans``: of "question_answering", and of nothing else. ``normalize``, of "embedding": vectors are divided by their
    length. ``threshold``, of "multilabel": the probability from which on a text has a label.
    """

    kind: str
    metric: str
    pair: bool
    spans: SpanSpec | None = None
    normalize: bool = False
    threshold: float = 0.5


@dataclass(frozen=True)
class ArtifactConfig:
    """All of config.json. ``model`` is the Hugging Face part; ``tensors`` has one entry a tensor of the model."""

    model: dict[str, Any]
    recipe: str
    activations: ActivationSpec
    task: TaskSpec
    max_length: int
    tensors: dict[str, TensorSpec]

    @property
    def labels(self) -> list[str]:
        """Label names by class id."""
        return labels_of(self.model)

    @property
    def num_labels(self) -> int:
        """C, the width of the classifier; 1 for regression."""
        return len(self.labels)

    @property
    def answer_size(self) -> int:
        """Columns of an answer: C, or H where there is no classifier."""
        return self.hidden_size if gives_vectors(self.model) else self.num_labels

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.model["hidden_size"])

    @property
    def embedding_size(self) -> int:
        """E, the width of the embeddings, which is H where the config does not say."""
        return embedding_size(self.model)

    @property
    def num_hidden_layers(self) -> int:
        """L."""
        return int(self.model["num_hidden_layers"])

    @property
    def num_attention_heads(self) -> int:
        """Heads of ``head_size`` columns each."""
        return int(self.model["num_attention_heads"])

    @property
    def head_size(self) -> int:
        """Columns of a head: H / heads where the config does not say."""
        return head_size(self.model)

    @property
    def attention_size(self) -> int:
        """A, the columns of all heads."""
        return attention_size(self.model)

    @property
    def intermediate_size(self) -> int:
        """I, the width of the feed-forward network."""
        return int(self.model["intermediate_size"])

    @property
    def vocab_size(self) -> int:
        """V; token ids run from 0 to V − 1."""
        return int(self.model["vocab_size"])

    @property
    def max_position_embeddings(self) -> int:
        """P; no text may have more tokens."""
        return int(self.model["max_position_embeddings"])

    @property
    def type_vocab_size(self) -> int:
        """T; token type ids run from 0 to T − 1."""
        return int(self.model["type_vocab_size"])

    @property
    def hidden_act(self) -> str:
        """Activation of the feed-forward network; transformers' default where the config has none."""
        return str(self.model.get("hidden_act", "gelu"))

    @property
    def head(self) -> str:
        """What the classifier reads: of the pooler's linear "linear", its tanh, "relu", relu of that (TinyBERT),
        "dense_relu", its relu (DistilBERT), or "dense_gelu", its gelu (ELECTRA); or "tokens", every token's last hidden
        state. Or, without a classifier, what of the last hidden states a text's vector is: "mean", "cls" or "max"."""
        return str(self.model.get("head", "linear"))

    @property
    def layer_norm_eps(self) -> float:
        """Added to the variance in every layer norm; transformers' default where the config has none."""
        return float(self.model.get("layer_norm_eps", 1e-12))


def parse_config(document: Mapping[str, Any], where: str = "config.json") -> ArtifactConfig:
    """Check a parsed config.json completely.

    Args:
        document: the JSON object.
        where: names the file in errors.

    Raises:
        ArtifactError: names the key or the tensor, what was found and what is allowed.
    """
    model = {key: value for key, value in document.items() if key != "quantization_config"}
    part = document.get("quantization_config")
    here = f"{where}: quantization_config"
    if not isinstance(part, dict) or part.get("quant_method") != "bitpress":
        raise ArtifactError(f"{here} does not say quant_method 'bitpress'; give a directory that bitpress wrote")
    version = part.get("version")  # before the keys: another version may have other ones
    if not isinstance(version, int) or isinstance(version, bool) or version != VERSION:
        raise ArtifactError(
            f"{here}.version is {shown(version)}; this bitpress reads version {VERSION}: install a newer one"
        )
    _check_keys(part, _TOP, here)
    check_model(model, where)
    recipe = _name(part["recipe"], f"{here}.recipe")
    activations = _parse_activations(part["activations"], f"{here}.activations")
    task = _parse_task(part["task"], model, f"{here}.task")
    max_length = check_int(part["max_length"], 2, model["max_position_embeddings"], f"{here}.max_length")
    tensors = _parse_tensors(part["tensors"], model, here)
    _check_binary(activations, tensors, model, f"{here}.activations")
    return ArtifactConfig(model, recipe, activations, task, max_length, tensors)


def config_document(config: ArtifactConfig) -> dict[str, Any]:
    """The JSON object of config.json; inverse of `parse_config`."""
    act = config.activations
    further: dict[str, dict[str, Any]] = {
        "uniform": {"bits": act.bits, "symmetric": act.symmetric, "range": act.range, "clip": act.clip},
        "binary": {"attention": act.attention},
    }
    quantization = {
        "quant_method": "bitpress",
        "version": VERSION,
        "recipe": config.recipe,
        "activations": {"scheme": act.scheme} | further.get(act.scheme, {}),
        "max_length": config.max_length,
        "task": task_document(config.task),
        "tensors": {name: spec_document(spec) for name, spec in config.tensors.items()},
    }
    return {**config.model, "quantization_config": quantization}


def task_document(task: TaskSpec) -> dict[str, Any]:
    """The object ``task`` of config.json."""
    further = _TASK_KEYS.get(task.kind, ())
    return {key: value for key, value in asdict(task).items() if key in ("kind", "metric", "pair", *further)}


def expected_entries(config: ArtifactConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every entry that model.safetensors must have: name → (dtype as safetensors calls it, shape)."""
    entries: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, spec in config.tensors.items():
        entries |= stored.entries(name, spec)
    if config.activations.scheme == "uniform" and config.activations.range == "static":
        entries |= {f"{point}.range": ("F32", (2,)) for point in activation_points(config.model)}
    if config.activations.is_elastic:
        entries |= {name: ("F32", shape) for name, shape in elastic_entries(config.model).items()}
    return entries


def _parse_activations(value: Any, here: str) -> ActivationSpec:
    scheme = value.get("scheme") if isinstance(value, dict) else value
    if scheme == "fp32":
        _check_keys(value, {"scheme"}, here)
        return ActivationSpec("fp32", 32)
    if scheme == "binary":
        _check_keys(value, {"scheme", "attention"}, here)
        return ActivationSpec("binary", 1, attention=_check_enum(value["attention"], ATTENTIONS, f"{here}.attention"))
    if scheme != "uniform":
        raise ArtifactError(f"{here}.scheme is {shown(scheme)}; allowed are 'fp32', 'uniform' and 'binary'")
    _check_keys(value, {"scheme", "bits", "symmetric", "range", "clip"}, here)
    bits = value["bits"]
    if type(bits) is not int or bits not in UNIFORM_BITS:
        raise ArtifactError(f"{here}.bits is {shown(bits)}; allowed are 8 and 4")
    _check_bool(value["symmetric"], f"{here}.symmetric")
    if value["range"] == "tensor":
        raise ArtifactError(
            f"{here}.range is 'tensor': a text's result would depend on the rest of its batch; "
            f"train with one of {', '.join(RANGES)}"
        )
    _check_enum(value["range"], RANGES, f"{here}.range")
    clip = value["clip"]
    if clip is not None and (not is_number(clip) or not 0 < clip <= MAX_CLIP):
        raise ArtifactError(
            f"{here}.clip is {shown(clip)}; null or a number above 0 and at most {MAX_CLIP:g} is expected"
        )
    return ActivationSpec("uniform", bits, value["symmetric"], value["range"], None if clip is None else float(clip))


def _parse_task(value: Any, model: Mapping[str, Any], here: str) -> TaskSpec:
    kind = _check_enum(value.get("kind") if isinstance(value, dict) else None, tuple(TASK_KINDS), f"{here}.kind")
    _check_keys(value, {"kind", "metric", "pair", *_TASK_KEYS.get(kind, ())}, here)
    _check_bool(value["pair"], f"{here}.pair")
    count = len(labels_of(model))
    if kind == "regression" and count != 1:
        raise ArtifactError(f"{here}.kind is 'regression' but the model has {count} labels; regression has exactly 1")
    if model.get("head", "linear") not in TASK_KINDS[kind]:
        raise ArtifactError(
            f"{here}.kind is {shown(kind)} but head is {shown(model.get('head', 'linear'))}; {shown(kind)} goes with "
            f"{', '.join(TASK_KINDS[kind])}"
        )
    if kind in ("token_classification", "embedding") and value["pair"]:
        raise ArtifactError(f"{here}.pair is true; {kind.replace('_', ' ')} reads one text")
    if kind == "question_answering" and not value["pair"]:
        raise ArtifactError(f"{here}.pair is false; question answering reads a question and a context")
    if kind == "question_answering" and count != 2:
        raise ArtifactError(f"{here}.kind is 'question_answering' but the model has {count} labels, not two outputs")
    problem = model.get("problem_type")
    expected = _PROBLEM_TYPES.get(kind, "single_label_classification")
    if (problem or expected) != expected or (kind == "multilabel" and problem is None):
        raise ArtifactError(f"{here}.kind is {shown(kind)} but problem_type is {shown(problem)}; make them agree")
    metric = _name(value["metric"], f"{here}.metric")
    threshold = value.get("threshold", 0.5)
    if not is_number(threshold) or not 0 < threshold < 1:
        raise ArtifactError(f"{here}.threshold is {shown(threshold)}; a number between 0 and 1 is expected")
    normalize = value.get("normalize", False)
    _check_bool(normalize, f"{here}.normalize")
    spans = _parse_spans(value["spans"], f"{here}.spans") if "spans" in value else None
    return TaskSpec(kind, metric, value["pair"], spans, normalize, float(threshold))


def _parse_spans(value: Any, here: str) -> SpanSpec:
    lengths = ("doc_stride", "max_query_length", "max_answer_length")
    _check_keys(value, {*lengths, "no_answer_threshold"}, here)
    stride, query, answer = (check_int(value[key], 1, MAX_SPAN, f"{here}.{key}") for key in lengths)
    threshold = value["no_answer_threshold"]
    if threshold is not None and not is_number(threshold):
        raise ArtifactError(f"{here}.no_answer_threshold is {shown(threshold)}; null or a finite number is expected")
    return SpanSpec(stride, query, answer, None if threshold is None else float(threshold))


def _parse_tensors(value: Any, model: Mapping[str, Any], here: str) -> dict[str, TensorSpec]:
    if not isinstance(value, dict):
        raise ArtifactError(f"{here}.tensors is {type(value).__name__}; an object of tensors by name is expected")
    shapes = expected_tensors(model)
    for name in value:
        if name not in shapes:
            raise ArtifactError(
                "stands in config.json but a model of this config has no such tensor; remove it", name[:200]
            )
    for name in shapes:
        if name not in value:
            raise ArtifactError("is missing from quantization_config.tensors of config.json", name)
    return {name: parse_spec(name, value[name], shape) for name, shape in shapes.items()}


def _check_binary(
    activations: ActivationSpec, tensors: Mapping[str, TensorSpec], model: Mapping[str, Any], here: str
) -> None:
    """Binary activations are multiplied by binary matrices of one term, and fp32 ones by none. Elastic ones need zeros
    and ones before the FFN's output, the others signs."""
    is_binary = activations.scheme == "binary"
    for name, spec in tensors.items():
        if not enters_a_product(name):
            continue
        found = f"scheme is {spec.scheme!r} where activations are {activations.scheme!r}"
        if spec.scheme == "binary" and activations.scheme == "fp32":
            raise ArtifactError(f"{found}; binary matrices need binary or uniform ones", name)
        if is_binary and spec.scheme != "binary":
            raise ArtifactError(f"{found}; they need binary matrices", name)
        if is_binary and spec.terms != 1:
            raise ArtifactError(f"terms is {spec.terms} where activations are 'binary'; they need one", name)
    act = model.get("hidden_act", "gelu")
    if activations.is_elastic and act != "relu":
        raise ArtifactError(f"{here}.attention is 'softmax' with hidden_act {shown(act)}; elastic bits need relu")
    if is_binary and not activations.is_elastic and act == "relu":
        raise ArtifactError(f"{here}.scheme is 'binary' with hidden_act 'relu', whose signs are all +1; use gelu")


def _check_keys(value: Any, keys: set[str], here: str) -> None:
    if not isinstance(value, dict):
        raise ArtifactError(f"{here} is {type(value).__name__}; an object with {sorted(keys)} is expected")
    if unknown := sorted(value.keys() - keys):
        raise ArtifactError(f"{here} has the unknown key {shown(unknown[0])}; allowed are {sorted(keys)}")
    if missing := sorted(keys - value.keys()):
        raise ArtifactError(f"{here} lacks the key {missing[0]!r}; all of {sorted(keys)} are needed")


def _check_enum(value: Any, allowed: tuple[str, ...], what: str) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise ArtifactError(f"{what} is {shown(value)}; allowed are {', '.join(allowed)}")
    return value


def _check_bool(value: Any, what: str) -> None:
    if not isinstance(value, bool):
        raise ArtifactError(f"{what} is {shown(value)}; true or false is expected")


def _name(value: Any, what: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ArtifactError(f"{what} is {shown(value)}; 1 to 100 letters, digits, spaces and _ . / + - are allowed")
    return value
