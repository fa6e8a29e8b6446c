"""The encoder's configuration: what a Hugging Face ``config.json`` of a checkpoint says, checked once, here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from bitpress.encoder.activations import ACTIVATIONS
from bitpress.errors import UnsupportedModelError
from bitpress.families import BERT, FAMILIES, POOLED_HEADS, POOLINGS, TOKEN_HEADS, Family

# What the names of Hugging Face's classes end in, by form of head; of those that read texts ForSequenceClassification.
_TOKEN_CLASSES = {"tokens": "ForTokenClassification", "spans": "ForQuestionAnswering"}
_CLASSES = {**_TOKEN_CLASSES, **dict.fromkeys(POOLINGS, "Model")}
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")

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
# Keys that are bitpress's own, under the same name in every family.
_OWN_FIELDS = ("attention_head_size", "head", "problem_type")
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
    """Shape, head and labels of a classifier, or of an encoder of sentences, which has no labels. Names and defaults
    are those of Hugging Face's BertConfig, whatever the family; only positions and token types that a text can have are
    counted.

    Build it with :meth:`from_hf`, which checks every value; ``extra`` keeps the keys that bitpress does not read, so
    that a checkpoint passes through without losing them.
    """

    model_type: str = "bert"  # of FAMILIES
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    embedding_size: int | None = None  # of the embeddings, None: hidden_size; where it differs a linear follows them
    attention_head_size: int | None = None  # None: hidden_size / num_attention_heads; given where heads were taken away
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    # POOLED_HEADS, TOKEN_HEADS or POOLINGS; a key of Hugging Face in no family, where `architectures` says what reads
    # tokens, and the files of sentence-transformers what is pooled
    head: str = "linear"
    normalizes: bool = False  # vectors are divided by their length: by who uses them, not in the forward pass
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
    def family(self) -> Family:
        """What its checkpoints call things."""
        family = FAMILIES[self.model_type]
        if self.answers_questions:
            return family.over_spans()
        if self.gives_vectors:
            return family.headless()
        return family.over_tokens() if self.classifies_tokens else family

    @property
    def position_offset(self) -> int:
        """Rows of the position table in the family's checkpoints before that of a text's first token."""
        return (self.pad_token_id or 0) + 1 if self.family.positions_after_padding else 0

    def key(self, name: str) -> str:
        """What the family's config.json calls field ``name``."""
        return self.family.config.get(name, name)

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
        return self.head in TOKEN_HEADS

    @property
    def answers_questions(self) -> bool:
        """True where a token's two logits are those of the start and the end of an answer."""
        return self.head == "spans"

    @property
    def gives_vectors(self) -> bool:
        """True where the answer to a text is its pooled last hidden states, [H]: a sentence embedding."""
        return self.head in POOLINGS

    @property
    def answer_size(self) -> int:
        """Columns of an answer: C, or H of a sentence embedding."""
        return self.hidden_size if self.gives_vectors else self.num_labels

    @property
    def is_multilabel(self) -> bool:
        """True where every label is a question of its own: a text may have none, some or all of them."""
        return self.problem_type == "multi_label_classification"

    @property
    def is_regression(self) -> bool:
        """True where the single output is a value: `problem_type` says so, or says nothing and there is one label."""
        if self.classifies_tokens or self.gives_vectors:
            return False
        return self.problem_type == "regression" or (self.problem_type is None and self.num_labels == 1)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> EncoderConfig:
        """Read the parsed ``config.json`` of a Hugging Face checkpoint.

        Raises:
            UnsupportedModelError: the checkpoint is of another family than those of ``FAMILIES``, or a value is unknown
                or out of range; the text names the key, what was found and what works.
        """
        family = _family_of(config)
        keys = {**family.config, **{name: name for name in _OWN_FIELDS}}
        known = {name: config[key] for name, key in keys.items() if key in config}
        if known.get("position_embedding_type", "") is None:
            del known["position_embedding_type"]
        read = {*keys.values(), "id2label"}
        extra = {key: value for key, value in config.items() if key not in read and key not in _NOT_CARRIED}
        values = {**family.defaults, **known, "id2label": _read_id2label(config)}
        if "head" not in known and (head := _named_head(config)) is not None:
            values["head"] = head
        if values.get("head") in POOLINGS:
            values |= {"id2label": {}, "problem_type": None}
        loaded = cls(model_type=family.model_type, **values, extra=extra)
        if loaded.embedding_size == loaded.hidden_size:
            loaded = replace(loaded, embedding_size=None)  # then a student of another hidden size has no projection
        if family.positions_after_padding:
            loaded = _without_unused_positions(loaded)
        _check_values(loaded)
        return loaded

    def to_hf(self) -> dict[str, Any]:
        """The ``config.json`` of this model as its Hugging Face class in fp32 has it (keys sorted)."""
        values = {key: getattr(self, name) for name, key in self.family.config.items()}
        values["max_position_embeddings"] += self.position_offset
        if "embedding_size" in values:
            values["embedding_size"] = self.embedding_size or self.hidden_size
        return self._document(values)

    def to_artifact(self) -> dict[str, Any]:
        """The model as artifacts describe it: as :meth:`to_hf`, but with BERT's keys whatever the family."""
        values = {key: getattr(self, name) for name, key in BERT.config.items()}
        if self.embedding_size not in (None, self.hidden_size):
            values["embedding_size"] = self.embedding_size
        document = self._document(values, default_head=BERT.default_head)
        return document | {"head": "tokens"} if self.answers_questions else document

    def _document(self, values: dict[str, Any], default_head: str | None = None) -> dict[str, Any]:
        """``values`` and what every config.json has; keys sorted."""
        kind = _CLASSES.get(self.head, "ForSequenceClassification")
        values |= {"model_type": self.model_type, "architectures": [f"{self.family.name}{kind}"], "dtype": "float32"}
        if self.attention_head_size is not None:
            values["attention_head_size"] = self.attention_head_size
        if self.head != (default_head or self.family.default_head):  # as transformers has it, it goes without saying
            values["head"] = self.head
        if self.gives_vectors:
            return dict(sorted((self.extra | values).items()))
        values["id2label"] = {str(index): label for index, label in self.id2label.items()}
        values["label2id"] = self.label2id
        if self.problem_type is not None:
            values["problem_type"] = self.problem_type
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

        Where the number of labels changes, or what the head reads, so may the kind of problem: then `problem_type` is
        as given, or None. An encoder of sentences has no labels.

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
            labels = dict(self.id2label) or _read_id2label({})
        head = head or self.head
        if head in POOLINGS:
            labels, problem_type = {}, None
        is_same_kind = reads(head) == reads(self.head) and len(labels) == self.num_labels
        if problem_type is None and is_same_kind:
            problem_type = self.problem_type
        changed = replace(self, id2label=labels, problem_type=problem_type, head=head)
        _check_values(changed)
        return changed


def _family_of(config: Mapping[str, Any]) -> Family:
    """The family of a checkpoint that is an encoder in full precision; anything else is refused."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"config.json: model_type is {model_type!r}; bitpress runs {_listed(sorted(FAMILIES))}. "
            "Start from a checkpoint of one of them"
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
    return FAMILIES[model_type]


def _named_head(config: Mapping[str, Any]) -> str | None:
    """The form of head that reads tokens of which ``architectures`` names a class."""
    names = config.get("architectures")
    for head, ending in _TOKEN_CLASSES.items():
        if isinstance(names, list) and any(str(name).endswith(ending) for name in names):
            return head
    return None


def reads(head: str) -> str:
    """What kind of head it is, whose weights mean nothing to another: one of TOKEN_HEADS or POOLINGS, or "texts"."""
    return "texts" if head in POOLED_HEADS else head


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


def _without_unused_positions(config: EncoderConfig) -> EncoderConfig:
    """A configuration as the file says it → with those positions alone that a text can use."""
    positions, pad = config.max_position_embeddings, config.pad_token_id
    if not isinstance(pad, int) or isinstance(pad, bool) or pad < 0:
        raise UnsupportedModelError(
            f"config.json: pad_token_id is {pad!r}; it must be an id, because the positions of a "
            f"{config.model_type!r} model start after it"
        )
    if not _is_size(positions) or positions <= config.position_offset:
        raise UnsupportedModelError(
            f"config.json: max_position_embeddings is {positions!r}; it must be an integer above "
            f"{config.position_offset}: the positions of a {config.model_type!r} model start at pad_token_id + 1"
        )
    return replace(config, max_position_embeddings=positions - config.position_offset)


def _check_values(config: EncoderConfig) -> None:
    def refuse(name: str, allowed: str) -> NoReturn:
        value = getattr(config, name)
        raise UnsupportedModelError(f"config.json: {config.key(name)} is {value!r}; it must be {allowed}")

    for name in _POSITIVE_INTEGERS:
        if not _is_size(getattr(config, name)):
            refuse(name, "a positive integer")
    for name in ("attention_head_size", "embedding_size"):
        if getattr(config, name) is not None and not _is_size(getattr(config, name)):
            refuse(name, "a positive integer or null")
    for name in _PROBABILITIES:
        value = getattr(config, name)
        if not (name == "classifier_dropout" and value is None) and not (_is_number(value) and 0 <= value < 1):
            refuse(name, "a number in [0, 1)")
    for name in ("initializer_range", "layer_norm_eps"):
        value = getattr(config, name)
        if not (_is_number(value) and value > 0):
            refuse(name, "a positive number")
    if config.attention_head_size is None and config.hidden_size % config.num_attention_heads:
        raise UnsupportedModelError(
            f"config.json: {config.key('hidden_size')} {config.hidden_size} is not a multiple of "
            f"{config.key('num_attention_heads')} {config.num_attention_heads}; every head must have the same width"
        )
    pad = config.pad_token_id
    if pad is not None and not (isinstance(pad, int) and 0 <= pad < config.vocab_size):
        refuse("pad_token_id", f"null or an id below vocab_size {config.vocab_size}")
    _check_choice(config, "hidden_act", tuple(ACTIVATIONS))
    _check_choice(config, "head", (*POOLED_HEADS, *TOKEN_HEADS, *POOLINGS))
    _check_choice(config, "position_embedding_type", config.family.position_types)
    if config.problem_type is not None:
        _check_choice(config, "problem_type", PROBLEM_TYPES)
    if config.answers_questions and config.num_labels != 2:
        raise UnsupportedModelError(
            f"config.json: {config.num_labels} labels with a head of question answering, which has two outputs, "
            "scores of a token as the start and as the end of an answer"
        )
    if (config.num_labels == 1) != config.is_regression:
        raise UnsupportedModelError(
            f"config.json: problem_type is {config.problem_type!r} with {config.num_labels} label(s); regression has "
            "exactly one label, classification at least two"
        )


def _check_choice(config: EncoderConfig, name: str, allowed: Sequence[str]) -> None:
    value = getattr(config, name)
    if value not in allowed:
        raise UnsupportedModelError(f"config.json: {config.key(name)} is {value!r}; bitpress runs {_listed(allowed)}")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
