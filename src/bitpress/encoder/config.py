"""The encoder's configuration: what a Hugging Face ``config.json`` of a BERT checkpoint says, checked once, here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bitpress.encoder.activations import ACTIVATIONS
from bitpress.errors import UnsupportedModelError

MODEL_TYPES = ("bert",)
POSITION_EMBEDDING_TYPES = ("absolute", "relative_key", "relative_key_query")
# What the classifier reads. "linear" and "relu", one answer a text: the pooler's tanh (Hugging Face), or relu of that
# (teachers and students of TinyBERT's release); a checkpoint of one gives wrong logits with the other. "tokens", one
# answer a token: every last hidden state, without a pooler.
POOLED_HEADS = ("linear", "relu")
HEADS = (*POOLED_HEADS, "tokens")
_TOKEN_CLASSIFIER = "ForTokenClassification"  # ends the name of Hugging Face's classes of that head
PROBLEM_TYPES = ("single_label_classification", "regression")

# True of the source file only (its path, its dtype where bitpress computes and saves fp32, its head), or written anew
# from other values (label2id is the inverse of id2label). Kept, they could be wrong in what bitpress writes.
_NOT_CARRIED = {
    "_name_or_path",
    "_num_labels",
    "architectures",
    "dtype",
    "label2id",
    "model_type",
    "num_labels",
    "torch_dtype",
}
_POSITIVE_INTEGERS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
_PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


@dataclass(frozen=True)
class EncoderConfig:
    """Shape, head and labels of a BERT classifier. Names and defaults are those of Hugging Face's BertConfig.

    Build it with :meth:`from_hf`, which checks every value; ``extra`` keeps the keys that bitpress does not read, so
    that a checkpoint passes through without losing them.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    attention_head_size: int | None = None  # None: hidden_size / num_attention_heads; given where heads were taken away
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    head: str = "linear"  # HEADS; not a key of Hugging Face, where `architectures` says what reads tokens
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None  # None: hidden_dropout_prob
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    position_embedding_type: str = "absolute"
    id2label: dict[int, str] = field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})
    problem_type: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @property
    def label2id(self) -> dict[str, int]:
        """The inverse of `id2label`, which alone names predictions; a stored label2id that disagrees is not read."""
        return {label: index for index, label in self.id2label.items()}

    @property
    def head_size(self) -> int:
        """Width of one attention head (d)."""
        return self.attention_head_size or self.hidden_size // self.num_attention_heads

    @property
    def attention_size(self) -> int:
        """Width of all heads together (A): what query, key and value have, and the attention output reads."""
        return self.num_attention_heads * self.head_size

    @property
    def classifies_tokens(self) -> bool:
        """True where every token has logits, False where each text does."""
        return self.head == "tokens"

    @property
    def is_regression(self) -> bool:
        """True where the single output is a value: `problem_type` says so, or says nothing and there is one label."""
        if self.classifies_tokens:
            return False
        return self.problem_type == "regression" or (self.problem_type is None and self.num_labels == 1)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> EncoderConfig:
        """Read the parsed ``config.json`` of a Hugging Face checkpoint.

        Raises:
            UnsupportedModelError: the checkpoint is not a BERT encoder, or a value is unknown or out of range; the
                text names the key, what was found and what works.
        """
        _refuse_other_models(config)
        known = {name: config[name] for name in cls.__dataclass_fields__ if name in config and name != "extra"}
        if known.get("position_embedding_type", "") is None:
            del known["position_embedding_type"]
        known["id2label"] = _read_id2label(config)
        if "head" not in known and _names_token_classifier(config):
            known["head"] = "tokens"
        extra = {key: value for key, value in config.items() if key not in known and key not in _NOT_CARRIED}
        loaded = cls(**known, extra=extra)
        _check_values(loaded)
        return loaded

    def to_hf(self) -> dict[str, Any]:
        """The ``config.json`` of this model as a Hugging Face sequence or token classifier in fp32 (keys sorted)."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "extra"}
        values["id2label"] = {str(index): label for index, label in self.id2label.items()}
        values["label2id"] = self.label2id
        for name in ("problem_type", "attention_head_size"):
            if values[name] is None:
                del values[name]
        if values["head"] == "linear":  # as every Hugging Face model
            del values["head"]
        kind = _TOKEN_CLASSIFIER if self.classifies_tokens else "ForSequenceClassification"
        values |= {"model_type": "bert", "architectures": [f"Bert{kind}"], "dtype": "float32"}
        return dict(sorted((self.extra | values).items()))

    def with_labels(
        self,
        num_labels: int | None = None,
        id2label: Mapping[int, str] | Sequence[str] | None = None,
        problem_type: str | None = None,
        head: str | None = None,
    ) -> EncoderConfig:
        """The same encoder with another head. What is not given stays, as in `transformers`: names are kept while
        their number fits, otherwise they become LABEL_0, LABEL_1, …

        Where the number of labels changes, or the head from texts to tokens or back, so may the kind of problem: then
        `problem_type` is as given, or None.

        Raises:
            UnsupportedModelError: the values contradict each other.
        """
        if id2label is not None:
            labels = _read_id2label({"id2label": id2label})
            if num_labels is not None and num_labels != len(labels):
                raise UnsupportedModelError(
                    f"num_labels is {num_labels} but id2label names {len(labels)} labels; give one of them, or two "
                    "that agree"
                )
        elif num_labels is not None and num_labels != self.num_labels:
            labels = _read_id2label({"num_labels": num_labels})
        else:
            labels = dict(self.id2label)
        head = head or self.head
        is_same_kind = (head == "tokens") == self.classifies_tokens and len(labels) == self.num_labels
        if problem_type is None and is_same_kind:
            problem_type = self.problem_type
        changed = replace(self, id2label=labels, problem_type=problem_type, head=head)
        _check_values(changed)
        return changed


def _refuse_other_models(config: Mapping[str, Any]) -> None:
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise UnsupportedModelError(
            f"config.json: model_type is {model_type!r}; bitpress runs {_listed(MODEL_TYPES)}. "
            "Start from a checkpoint of that kind"
        )
    for flag in ("is_decoder", "add_cross_attention"):
        if config.get(flag):
            raise UnsupportedModelError(
                f"config.json: {flag} is {config[flag]!r}; bitpress runs encoders, where it is false. "
                "Start from an encoder checkpoint"
            )
    if config.get("quantization_config"):
        settings = config["quantization_config"]
        method = settings.get("quant_method") if isinstance(settings, Mapping) else None
        raise UnsupportedModelError(
            f"config.json: quantization_config is present (quant_method {method!r}); training needs full-precision "
            "weights. Give the checkpoint that this model was made from"
        )


def _names_token_classifier(config: Mapping[str, Any]) -> bool:
    names = config.get("architectures")
    return isinstance(names, list) and any(str(name).endswith(_TOKEN_CLASSIFIER) for name in names)


def _read_id2label(config: Mapping[str, Any]) -> dict[int, str]:
    given = config.get("id2label")
    if given is None:
        count = config.get("num_labels", config.get("_num_labels", 2))
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UnsupportedModelError(f"num_labels is {count!r}; it must be an integer of at least 1")
        return {index: f"LABEL_{index}" for index in range(count)}
    try:
        pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
        labels = dict(sorted((int(index), str(label)) for index, label in pairs))
    except (TypeError, ValueError):
        labels = {}
    if not labels or list(labels) != list(range(len(labels))):
        raise UnsupportedModelError(f"id2label is {given!r}; it must name the ids 0, 1, … without a gap")
    if len(set(labels.values())) != len(labels):
        raise UnsupportedModelError(f"id2label is {given!r}; two ids have the same label, give each its own")
    return labels


def _check_values(config: EncoderConfig) -> None:
    for name in _POSITIVE_INTEGERS:
        value = getattr(config, name)
        if not _is_size(value):
            raise UnsupportedModelError(f"config.json: {name} is {value!r}; it must be a positive integer")
    if config.attention_head_size is not None and not _is_size(config.attention_head_size):
        raise UnsupportedModelError(
            f"config.json: attention_head_size is {config.attention_head_size!r}; it must be a positive integer or null"
        )
    for name in _PROBABILITIES:
        value = getattr(config, name)
        if not (name == "classifier_dropout" and value is None) and not (_is_number(value) and 0 <= value < 1):
            raise UnsupportedModelError(f"config.json: {name} is {value!r}; it must be a number in [0, 1)")
    for name in ("initializer_range", "layer_norm_eps"):
        value = getattr(config, name)
        if not (_is_number(value) and value > 0):
            raise UnsupportedModelError(f"config.json: {name} is {value!r}; it must be a positive number")
    if config.attention_head_size is None and config.hidden_size % config.num_attention_heads:
        raise UnsupportedModelError(
            f"config.json: hidden_size {config.hidden_size} is not a multiple of "
            f"num_attention_heads {config.num_attention_heads}; every head must have the same width"
        )
    pad = config.pad_token_id
    if pad is not None and not (isinstance(pad, int) and 0 <= pad < config.vocab_size):
        raise UnsupportedModelError(
            f"config.json: pad_token_id is {pad!r}; it must be null or an id below vocab_size {config.vocab_size}"
        )
    _check_choice("hidden_act", config.hidden_act, tuple(ACTIVATIONS))
    _check_choice("head", config.head, HEADS)
    _check_choice("position_embedding_type", config.position_embedding_type, POSITION_EMBEDDING_TYPES)
    if config.problem_type is not None:
        _check_choice("problem_type", config.problem_type, PROBLEM_TYPES)
    if (config.num_labels == 1) != config.is_regression:
        raise UnsupportedModelError(
            f"config.json: problem_type is {config.problem_type!r} with {config.num_labels} label(s); regression has "
            "exactly one label, classification at least two"
        )


def _check_choice(key: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UnsupportedModelError(f"config.json: {key} is {value!r}; bitpress runs {_listed(allowed)}")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
