"""The model families that bitpress runs: one encoder, and what each family's checkpoints call and do otherwise.

Everything that differs stands in the table `FAMILIES`. Reading and writing checkpoints (:mod:`bitpress.encoder`)
follows it; the encoder itself, artifacts and the engine know sizes and the form of the head only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# What the classifier reads. One answer a text, of the pooler's linear: its tanh (BERT), relu of that (teachers and
# students of TinyBERT's release), its relu (DistilBERT) or its GELU (ELECTRA); a checkpoint of one gives wrong logits
# with another. "tokens", one answer a token: every last hidden state, without a pooler.
POOLED_HEADS = ("linear", "relu", "dense_relu", "dense_gelu")
# In checkpoints also "spans", of extractive question answering: "tokens" with two outputs, of a token as the start and
# as the end of the answer. Only the classifier's name is another; artifacts say "tokens".
TOKEN_HEADS = ("tokens", "spans")
# Of a sentence embedding, which has neither pooler nor classifier, what a text's vector is made of: the mean of all its
# tokens' last hidden states, special tokens included, the first token's, or the largest value of each column.
POOLINGS = ("mean", "cls", "max")
HEADS = (*POOLED_HEADS, "tokens", *POOLINGS)

_BERT_CONFIG = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
    "position_embedding_type",
)
_BERT_EMBEDDINGS = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
}
_BERT_LAYER = {
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


def _same(names: tuple[str, ...]) -> dict[str, str]:
    return {name: name for name in names}


@dataclass(frozen=True)
class Family:
    """One family of Hugging Face checkpoints.

    Attributes:
        model_type: as ``config.json`` calls it.
        name: what its classes begin with: name + "ForSequenceClassification", name + "Model".
        prefix: of the names of an encoder's tensors where there is a head beside it; then
            ``body`` (canonical module → theirs), ``layers`` (their list of layers) and in it ``layer``.
        head: canonical module → theirs, whole names without ``prefix``.
        config: fields of :class:`~bitpress.encoder.config.EncoderConfig` → keys of config.json. A field that has none
            is what ``defaults`` says, whatever the file says.
        defaults: of fields whose default differs from BERT's.
        position_types: the ``position_embedding_type`` there are.
        positions_after_padding: a text's positions start at pad_token_id + 1; no text reads the rows of the position
            table before that one, though max_position_embeddings counts them.
    """

    model_type: str
    name: str
    prefix: str
    head: Mapping[str, str]
    body: Mapping[str, str] = field(default_factory=lambda: _BERT_EMBEDDINGS)
    layers: str = "encoder.layer"
    layer: Mapping[str, str] = field(default_factory=lambda: _BERT_LAYER)
    config: Mapping[str, str] = field(default_factory=lambda: _same(_BERT_CONFIG))
    defaults: Mapping[str, Any] = field(default_factory=dict)
    position_types: tuple[str, ...] = ("absolute",)
    positions_after_padding: bool = False

    @property
    def has_token_types(self) -> bool:
        """Whether checkpoints have a table of token types; without one the encoder's has one row of zeros."""
        return "embeddings.token_type" in self.body

    @property
    def default_head(self) -> str:
        """The form of head (``POOLED_HEADS``) that transformers gives the family's classifiers of texts."""
        return str(self.defaults.get("head", "linear"))

    def over_tokens(self) -> Family:
        """The family's classifiers of tokens: one linear, which all families call the same."""
        body = {ours: theirs for ours, theirs in self.body.items() if ours != "pooler.dense"}
        return replace(self, body=body, head={"classifier": "classifier"})

    def over_spans(self) -> Family:
        """The family's models of extractive question answering, whose linear all families call the same, too."""
        return replace(self.over_tokens(), head={"classifier": "qa_outputs"})

    def headless(self) -> Family:
        """The family's bare encoders."""
        return replace(self.over_tokens(), head={})


BERT = Family(
    model_type="bert",
    name="Bert",
    prefix="bert.",
    body=_BERT_EMBEDDINGS | {"pooler.dense": "pooler.dense"},
    head={"classifier": "classifier"},
    position_types=("absolute", "relative_key", "relative_key_query"),
)

# Sanh et al. 2019 (arXiv 1910.01108): BERT without token types and pooler.
DISTILBERT = Family(
    model_type="distilbert",
    name="DistilBert",
    prefix="distilbert.",
    body={ours: theirs for ours, theirs in _BERT_EMBEDDINGS.items() if ours != "embeddings.token_type"},
    layers="transformer.layer",
    layer={
        "attention.query": "attention.q_lin",
        "attention.key": "attention.k_lin",
        "attention.value": "attention.v_lin",
        "attention.output": "attention.out_lin",
        "attention.norm": "sa_layer_norm",
        "ffn.intermediate": "ffn.lin1",
        "ffn.output": "ffn.lin2",
        "ffn.norm": "output_layer_norm",
    },
    head={"pooler.dense": "pre_classifier", "classifier": "classifier"},
    config={
        "vocab_size": "vocab_size",
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "classifier_dropout": "seq_classif_dropout",
        "max_position_embeddings": "max_position_embeddings",
        "initializer_range": "initializer_range",
        "pad_token_id": "pad_token_id",
    },
    defaults={"num_hidden_layers": 6, "type_vocab_size": 1, "classifier_dropout": 0.2, "head": "dense_relu"},
)

# Liu et al. 2019 (arXiv 1907.11692), and the models in its shape: no pooler, a head of two linears.
ROBERTA = Family(
    model_type="roberta",
    name="Roberta",
    prefix="roberta.",
    head={"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"},
    defaults={"vocab_size": 50265, "pad_token_id": 1},
    positions_after_padding=True,
)
# Martin et al. 2020 (arXiv 1911.03894) and Conneau et al. 2020 (arXiv 1911.02116).
CAMEMBERT = replace(ROBERTA, model_type="camembert", name="Camembert", defaults={"pad_token_id": 1})
XLM_ROBERTA = replace(CAMEMBERT, model_type="xlm-roberta", name="XLMRoberta")

# Clark et al. 2020 (arXiv 2003.10555), the discriminator: embeddings may be narrower than the layers.
ELECTRA = Family(
    model_type="electra",
    name="Electra",
    prefix="electra.",
    body=_BERT_EMBEDDINGS | {"embeddings.projection": "embeddings_project"},
    head={"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"},
    config=_same((*_BERT_CONFIG, "embedding_size")),
    defaults={
        "embedding_size": 128,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "head": "dense_gelu",
    },
)

FAMILIES = {family.model_type: family for family in (BERT, DISTILBERT, ROBERTA, CAMEMBERT, XLM_ROBERTA, ELECTRA)}


def most_tokens(config: Mapping[str, Any]) -> int:
    """Tokens that a text may have, by the ``config.json`` of a checkpoint or an artifact, which need not be of these
    families."""
    positions = int(config.get("max_position_embeddings", 512))
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None or not family.positions_after_padding or "quantization_config" in config:
        return positions  # artifacts count what a text can use
    return positions - 1 - int(config.get("pad_token_id", family.defaults["pad_token_id"]))
