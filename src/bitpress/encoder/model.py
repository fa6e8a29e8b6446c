"""An encoder with a classification head over texts or tokens, with one of question answering, or one of sentences, as
bitpress trains it: BERT (Devlin et al. 2018, arXiv 1810.04805), and what the families of :mod:`bitpress.families` do
otherwise.

Shapes throughout: B texts, T tokens (padded), E embedding size (H but in ELECTRA), H hidden size, I intermediate size,
h heads of width d, A = h·d (which is H but where heads were taken away), L layers, C labels. Attribute names are the
canonical tensor names, so ``state_dict()`` keys need no translation.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitpress.encoder.activations import ACTIVATIONS
from bitpress.encoder.config import EncoderConfig
from bitpress.encoder.layers import ActivationPoint, EmbeddingTable, Linear, dropout, keep_signs
from bitpress.errors import UnsupportedModelError
from bitpress.families import POOLED_HEADS

# Added to the score of a padded key. Finite, so that a text of padding only gives no NaN; exp(MASKED − max) is exactly
# 0 in fp32 for every score that occurs, so padded keys get probability exactly 0.
MASKED = torch.finfo(torch.float32).min


@dataclass
class EncoderOutput:
    """What one forward pass returns; the tuples are empty unless ``collect`` was asked for."""

    logits: Tensor  # [B, C]; of a head that reads tokens [B, T, C]; of sentence embeddings [B, H], the vectors
    hidden_states: tuple[Tensor, ...] = ()  # L + 1 of [B, T, H]: embedding output, then each layer's output
    attention_scores: tuple[Tensor, ...] = ()  # L of [B, h, T, T]: masked, before softmax
    projections: tuple[tuple[Tensor, Tensor, Tensor], ...] = ()  # L × query, key, value [B, h, T, d], not quantized


@dataclass
class AttentionStates:
    """What distillation compares of one layer's attention: see :class:`EncoderOutput`."""

    scores: Tensor
    projections: tuple[Tensor, Tensor, Tensor]


class Embeddings(nn.Module):
    """LayerNorm(word + token type + position), then dropout, and where E is not H a linear (ELECTRA's), which like the
    classifier stays fp32."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = config.embedding_size or config.hidden_size
        self.word = EmbeddingTable(config.vocab_size, size, config.pad_token_id)
        self.position = EmbeddingTable(config.max_position_embeddings, size)
        self.token_type = nn.Embedding(config.type_vocab_size, size)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.projection = None if size == config.hidden_size else nn.Linear(size, config.hidden_size)
        self.dropout = config.hidden_dropout_prob
        self.absolute = config.position_embedding_type == "absolute"
        if not self.absolute:
            # Relative checkpoints carry this table without using it.
            self.position.weight.requires_grad_(False)
        if not config.family.has_token_types:
            self.token_type.weight.requires_grad_(False)  # stays 0: such checkpoints cannot hold anything else

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """ids int64 [B, T], token types int64 [B, T] or None (all 0) → [B, T, H]."""
        length, positions = input_ids.shape[1], len(self.position.weight)
        if length > positions:
            raise UnsupportedModelError(
                f"a text of {length} tokens; this model has {positions} positions. Set max_length to at most "
                f"{positions}"
            )
        x = self.word(input_ids) + self.types(token_type_ids)
        if self.absolute:
            x = x + self.position.first(length)
        x = dropout(self.norm(x), self.dropout, self.training)
        return x if self.projection is None else self.projection(x)

    def types(self, token_type_ids: Tensor | None) -> Tensor:
        """int64 [B, T] or None (all 0) → [B, T, E], or [E] where all are the same: also where there is one type only,
        whatever a tokenizer says of a pair's second text (DistilBERT has BERT's)."""
        if token_type_ids is None or self.token_type.num_embeddings == 1:
            return self.token_type.weight[0]
        types: Tensor = self.token_type(token_type_ids)
        return types


class Attention(nn.Module):
    """Self-attention with its output linear, residual and LayerNorm.

    ``weigh`` makes attention weights of masked scores [B, h, T, T]; None: softmax. ``observe`` is given the weights as
    they enter the product, quantized, and ``real``; None: nobody looks.
    """

    def __init__(self, config: EncoderConfig, name: str) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.attention_size
        self.heads, self.head_size = config.num_attention_heads, config.head_size
        self.query, self.key, self.value = Linear(size, inner), Linear(size, inner), Linear(size, inner)
        self.output = Linear(inner, size)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.probability_dropout = config.attention_probs_dropout_prob
        self.hidden_dropout = config.hidden_dropout_prob
        self.position_embedding_type = config.position_embedding_type
        if config.position_embedding_type != "absolute":
            self.distance = nn.Embedding(2 * config.max_position_embeddings - 1, self.head_size)
        self.weigh: Callable[[Tensor], Tensor] | None = None
        self.observe: Callable[[Tensor, Tensor | None], None] | None = None
        self.input = ActivationPoint(f"{name}.input", "rows")
        self.query_states = ActivationPoint(f"{name}.query_states", "head_rows")
        self.key_states = ActivationPoint(f"{name}.key_states", "head_rows")
        self.probabilities = ActivationPoint(f"{name}.probabilities", "probabilities")
        self.value_states = ActivationPoint(f"{name}.value_states", "head_block")
        self.context = ActivationPoint(f"{name}.context", "rows")

    def forward(
        self, hidden: Tensor, bias: Tensor | None, real: Tensor | None, collect: bool
    ) -> tuple[Tensor, AttentionStates | None]:
        """hidden [B, T, H]; bias [B, 1, 1, T], added to scores, or None; real bool [B, T] or None → ([B, T, H], what
        was asked for with ``collect``)."""
        x = self.input(hidden, real)
        query, key, value = (self._split(linear(x)) for linear in (self.query, self.key, self.value))
        states = None
        if collect or not self._is_plain():
            context, scores = self._explicit(query, key, value, bias, real)
            if collect:
                states = AttentionStates(scores, (query, key, value))
        else:
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        context = context.transpose(1, 2).flatten(2)
        out = dropout(self.output(self.context(context, real)), self.hidden_dropout, self.training)
        return self.norm(out + hidden), states

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, A] → [B, h, T, d], a view."""
        return x.view(x.shape[0], x.shape[1], self.heads, self.head_size).transpose(1, 2)

    def _is_plain(self) -> bool:
        """True where torch's fused attention computes the same: nothing between its products, no dropout (with which
        it falls back to a slower composition than :meth:`_explicit`)."""
        points = (self.query_states, self.key_states, self.probabilities, self.value_states)
        return (
            self.position_embedding_type == "absolute"
            and self.weigh is None
            and self.observe is None
            and all(point.quantizer is None for point in points)
            and not (self.training and self.probability_dropout > 0)
        )

    def _explicit(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, real: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attention step by step. query, key, value [B, h, T, d] → (context [B, h, T, d], scores [B, h, T, T])."""
        query, key = self.query_states(query, real), self.key_states(key, real)
        scores = torch.matmul(query, key.transpose(-1, -2))
        if self.position_embedding_type != "absolute":
            scores = scores + self._relative_scores(query, key)
        # In place: the backward of a product needs its factors, not its result.
        scores /= math.sqrt(self.head_size)
        if bias is not None:
            scores += bias
        weights = scores.softmax(dim=-1) if self.weigh is None else self.weigh(scores)
        probabilities = dropout(weights, self.probability_dropout, self.training)
        probabilities = self.probabilities(probabilities, real)
        if self.observe is not None:
            self.observe(probabilities, real)
        return torch.matmul(probabilities, self.value_states(value, real)), scores

    def _relative_scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Shaw et al. 2018 (arXiv 1803.02155) for "relative_key"; Huang et al. 2020 (arXiv 2009.13658, method 4) for
        "relative_key_query". query, key [B, h, T, d] → [B, h, T, T], to be divided by sqrt(d) with the rest."""
        position = torch.arange(query.shape[2], device=query.device)
        furthest = self.distance.num_embeddings // 2
        distance = self.distance(position[:, None] - position[None, :] + furthest)  # [T query, T key, d]
        scores = torch.einsum("bhqd,qkd->bhqk", query, distance)
        if self.position_embedding_type == "relative_key_query":
            scores = scores + torch.einsum("bhkd,qkd->bhqk", key, distance)
        return scores


class FeedForward(nn.Module):
    """Two linears with the activation between them, residual and LayerNorm."""

    def __init__(self, config: EncoderConfig, name: str) -> None:
        super().__init__()
        self.intermediate = Linear(config.hidden_size, config.intermediate_size)
        self.output = Linear(config.intermediate_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.function: Callable[[Tensor], Tensor] = ACTIVATIONS[config.hidden_act]
        self.dropout = config.hidden_dropout_prob
        self.input = ActivationPoint(f"{name}.input", "rows")
        self.activation = ActivationPoint(f"{name}.activation", "rows")

    def forward(self, hidden: Tensor, real: Tensor | None) -> Tensor:
        """hidden [B, T, H]; real bool [B, T] or None → [B, T, H]."""
        x = self.intermediate(self.input(hidden, real))
        inner = self.function(x)
        if getattr(self.activation.quantizer, "keeps_only_signs", False):
            inner = keep_signs(inner, x)
        inner = self.activation(inner, real)
        return self.norm(dropout(self.output(inner), self.dropout, self.training) + hidden)


class Layer(nn.Module):
    """One encoder layer."""

    def __init__(self, config: EncoderConfig, name: str) -> None:
        super().__init__()
        self.attention = Attention(config, f"{name}.attention")
        self.ffn = FeedForward(config, f"{name}.ffn")

    def forward(
        self, hidden: Tensor, bias: Tensor | None, real: Tensor | None, collect: bool
    ) -> tuple[Tensor, AttentionStates | None]:
        hidden, states = self.attention(hidden, bias, real, collect)
        return self.ffn(hidden, real), states


# What the classifier reads of the pooler's linear, by form of head (`families.HEADS`).
_HEAD_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": torch.tanh,
    "relu": lambda x: torch.relu(torch.tanh(x)),
    "dense_relu": torch.relu,
    "dense_gelu": F.gelu,
}


class Pooler(nn.Module):
    """f(linear(first token's final hidden state)), with f by the form of head."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.input = ActivationPoint("pooler.input", "rows")
        self.function = _HEAD_FUNCTIONS[config.head]

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, H] → [B, H]."""
        return self.function(self.dense(self.input(hidden[:, 0])))


class SequenceClassifier(nn.Module):
    """BERT encoder and classifier over one or two texts, or with head "tokens" or "spans" over the tokens of a text. A
    classifier of texts reads the pooler, and one label means regression; one of tokens has no pooler. With a head of
    ``POOLINGS`` there is neither: the answer is the pooled last hidden states, before any normalization.

    Fresh parameters are those of :func:`fresh_parameter`, a function of ``seed`` and the tensor's name only;
    ``fresh_tensors`` names the parameters that no checkpoint filled.
    """

    def __init__(self, config: EncoderConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):  # skips torch's own initialisation, which would be thrown away
            self.embeddings = Embeddings(config)
            self.layers = nn.ModuleList(Layer(config, f"layers.{i}") for i in range(config.num_hidden_layers))
            self.pooler = Pooler(config) if config.head in POOLED_HEADS else None
            self.classifier = None if config.gives_vectors else Linear(config.hidden_size, config.num_labels)
        self.classifier_dropout = (
            config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        )
        if config.answers_questions:
            self.classifier_dropout = 0.0  # as published (Devlin et al. 2018), and in transformers but for DistilBERT
        if not torch.empty(0).is_meta:
            shapes = {name: tuple(parameter.shape) for name, parameter in self.named_parameters()}
            fresh = {name: fresh_parameter(name, shape, config, seed) for name, shape in shapes.items()}
            self.load_state_dict(fresh, assign=True)
        self.fresh_tensors: tuple[str, ...] = tuple(name for name, _ in self.named_parameters())

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        collect: bool = False,
    ) -> EncoderOutput:
        """Logits of a padded batch, and with ``collect`` what distillation compares.

        Args:
            input_ids: int64 [B, T].
            attention_mask: [B, T], non-zero at real tokens; None: no padding.
            token_type_ids: int64 [B, T]; None: all 0 (one text).
            collect: also return hidden states, masked pre-softmax attention scores and projections.

        Raises:
            UnsupportedModelError: more tokens than the model has positions.
        """
        hidden, hidden_states, attention = self.encode(input_ids, attention_mask, token_type_ids, collect)
        if self.classifier is None:
            answer = pool(hidden, attention_mask, self.config.head)
        else:
            features = hidden if self.pooler is None else self.pooler(hidden)
            answer = self.classifier(dropout(features, self.classifier_dropout, self.training))
        return EncoderOutput(
            answer,
            tuple(hidden_states),
            tuple(states.scores for states in attention),
            tuple(states.projections for states in attention),
        )

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        collect: bool = False,
    ) -> tuple[Tensor, list[Tensor], list[AttentionStates]]:
        """The last hidden state [B, T, H], before pooler and head, and what was asked for with ``collect``; arguments
        as :meth:`forward`."""
        real = None if attention_mask is None else attention_mask.to(torch.bool)
        if real is not None and bool(real.all()):
            real = None  # as good as no mask, and cheaper everywhere below
        bias = None
        if real is not None:
            bias = torch.zeros(real.shape, device=real.device).masked_fill_(~real, MASKED)[:, None, None, :]
        hidden = self.embeddings(input_ids, token_type_ids)
        hidden_states = [hidden] if collect else []
        attention: list[AttentionStates] = []
        for layer in self.layers:
            hidden, states = layer(hidden, bias, real, collect)
            if collect:
                hidden_states.append(hidden)
                attention.append(states)
        return hidden, hidden_states, attention

    def set_hidden_act(self, name: str) -> None:
        """Another activation function in every feed-forward network, and in ``config``.

        Raises:
            UnsupportedModelError: there is none of that name; the text lists those there are.
        """
        if name not in ACTIVATIONS:
            raise UnsupportedModelError(f"hidden_act is {name!r}; allowed: {', '.join(ACTIVATIONS)}")
        self.config = replace(self.config, hidden_act=name)
        for module in self.modules():
            if isinstance(module, FeedForward):
                module.function = ACTIVATIONS[name]

    def set_head(self, name: str) -> None:
        """Another form of a head that reads texts, here and in ``config``; its weights stay.

        Raises:
            UnsupportedModelError: there is none of that name, or one of the two heads reads tokens.
        """
        if self.pooler is None or name not in POOLED_HEADS:
            raise UnsupportedModelError(
                f"the head {self.config.head!r} cannot become {name!r}; allowed: {', '.join(POOLED_HEADS)} in a model "
                "that has one of them"
            )
        self.config = replace(self.config, head=name)
        self.pooler.function = _HEAD_FUNCTIONS[name]

    def set_dropout(self, probability: float) -> None:
        """One dropout probability everywhere, while training here; ``config`` keeps the checkpoint's own."""
        for module in self.modules():
            if isinstance(module, Embeddings):
                module.dropout = probability
            elif isinstance(module, Attention):
                module.probability_dropout = module.hidden_dropout = probability
            elif isinstance(module, FeedForward):
                module.dropout = probability
        self.classifier_dropout = probability


def pool(hidden: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Last hidden states [B, T, H] of padded texts, their mask [B, T] (None: no padding) → vectors [B, H], as the
    pooling module of sentence-transformers makes them (Reimers & Gurevych 2019, arXiv 1908.10084, §3).

    pooling: one of ``bitpress.families.POOLINGS``.
    """
    if pooling == "cls":
        return hidden[:, 0]
    if mask is None:
        mask = torch.ones(hidden.shape[:2], device=hidden.device)
    if pooling == "max":
        return hidden.masked_fill(~mask.to(torch.bool)[:, :, None], -torch.inf).amax(dim=1)
    weights = mask.to(hidden.dtype)[:, :, None]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def head_parameters(model: SequenceClassifier) -> list[nn.Parameter]:
    """Of pooler and classifier: what an objective on hidden states does not reach."""
    return [p for name, p in model.named_parameters() if name.startswith(("pooler.", "classifier."))]


def fresh_parameter(name: str, shape: tuple[int, ...], config: EncoderConfig, seed: int) -> Tensor:
    """An untrained parameter as BERT starts it: weights N(0, initializer_range), biases 0, LayerNorm gains 1.

    Depends on ``seed`` and ``name`` only, not on which other tensors are fresh. fp32, CPU.
    """
    if name.endswith(".bias") or (name == "embeddings.token_type.weight" and not config.family.has_token_types):
        return torch.zeros(shape, device="cpu")
    if name.endswith("norm.weight"):
        return torch.ones(shape, device="cpu")
    # torch's CPU generator keeps the low 32 bits of a seed only, so seed and name are mixed into those.
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    values = torch.empty(shape, device="cpu").normal_(0.0, config.initializer_range, generator=generator)
    if name == "embeddings.word.weight" and config.pad_token_id is not None:
        values[config.pad_token_id] = 0.0
    return values
