"""Layers of one-bit weights and activations in the engine's arithmetic: BiBERT's signs, and BiT's elastic bits.

Shapes: B texts of T tokens each, unpadded; H hidden size, h heads, d features of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bitpress.encoder import SequenceClassifier
from bitpress.encoder.layers import ActivationPoint, Linear
from bitpress.encoder.model import Attention, FeedForward, Layer
from bitpress.quantize import AllAttention, BinaryQuantizer, ElasticQuantizer, SignQuantizer
from bitpress.recipes.replay.arithmetic import apply, fma, layer_norm, sqrt


def is_binarized(student: SequenceClassifier) -> bool:
    """Whether weights and activations of every linear but the classifier are bits."""
    return all(
        isinstance(m.weight_quantizer, BinaryQuantizer) and _one_bit(m, student)
        for n, m in student.named_modules()
        if isinstance(m, Linear) and n != "classifier"
    )


def _one_bit(linear: Linear, student: SequenceClassifier) -> bool:
    if isinstance(linear.input_quantizer, ElasticQuantizer):
        return linear.input_quantizer.bits == 1
    first = student.layers[0]
    assert isinstance(first, Layer)
    return isinstance(first.attention.input.quantizer, SignQuantizer)


@dataclass(frozen=True)
class _Weight:
    signs: Tensor  # fp32 [outputs, inputs]
    scale: Tensor  # [outputs], that of the inputs multiplied in


class BitReplay:
    """Layers whose weights and activations are bits."""

    def __init__(self, student: SequenceClassifier) -> None:
        self.student = student
        self._weights = {m: _weight(m) for m in student.modules() if isinstance(m, Linear) and m.weight_quantizer}

    def layer(self, i: int, hidden: Tensor) -> Tensor:
        """hidden [B, T, H] before layer ``i`` → after it."""
        layer = self.student.layers[i]
        assert isinstance(layer, Layer)
        attention, ffn = layer.attention, layer.ffn
        context = self._context(attention, hidden)
        hidden = layer_norm(attention.norm, self._linear(attention.output, _encode(attention.output, context)) + hidden)
        inner = self._inner(ffn, hidden)
        return layer_norm(ffn.norm, self._linear(ffn.output, _encode(ffn.output, inner)) + hidden)

    def pool(self, first: Tensor) -> Tensor:
        """First tokens [B, H] → the pooler's linear [B, H]."""
        assert self.student.pooler is not None, "of a classifier of texts"
        dense = self.student.pooler.dense
        return self._linear(dense, _encode(dense, first))

    def _linear(self, linear: Linear, codes: Tensor) -> Tensor:
        weight = self._weights[linear]
        return fma(torch.matmul(codes, weight.signs.T), weight.scale, linear.bias)

    def _inner(self, ffn: FeedForward, hidden: Tensor) -> Tensor:
        """What the second linear quantizes. GELU and its kind keep the sign, and nothing else of them is used."""
        inner = self._linear(ffn.intermediate, _encode(ffn.intermediate, hidden))
        return inner.clamp(min=0) if isinstance(ffn.output.input_quantizer, ElasticQuantizer) else inner

    def _context(self, module: Attention, hidden: Tensor) -> Tensor:
        """Context [B, T, H]: integers, with elastic quantizers times their scales."""
        query, key, value = (
            _state(point, module._split(self._linear(linear, _encode(linear, hidden))))
            for linear, point in (
                (module.query, module.query_states),
                (module.key, module.key_states),
                (module.value, module.value_states),
            )
        )
        scores = torch.matmul(query, key.transpose(-1, -2))
        context = torch.matmul(_attended(module, scores), value).transpose(1, 2).flatten(2)
        if not isinstance(module.probabilities.quantizer, ElasticQuantizer):
            return context
        return (_step(module.probabilities) * _step(module.value_states)) * context


def _attended(module: Attention, scores: Tensor) -> Tensor:
    """Integer scores [B, h, T, T] of signs → 1 where a query attends, else 0."""
    if isinstance(module.weigh, AllAttention):
        return torch.ones_like(scores)
    probabilities = module.probabilities.quantizer
    if not isinstance(probabilities, ElasticQuantizer):
        return (scores >= 0).to(scores.dtype)
    # Of k mismatches more than the row's fewest: one exponential each, summed from the fewest on.
    d = module.head_size
    root = sqrt(torch.tensor(float(d)))
    factor = (_step(module.query_states) * _step(module.key_states)) / root
    exponentials = apply("exp", -(factor * (2.0 * torch.arange(d + 1))))
    more = ((scores.amax(dim=-1, keepdim=True) - scores) / 2).long()
    counts = torch.zeros(*scores.shape[:-1], d + 1).scatter_add_(-1, more, torch.ones_like(scores))
    total = torch.zeros(scores.shape[:-1])
    for k in range(d + 1):
        total = fma(counts[..., k], exponentials[k], total)
    kept = exponentials / total.unsqueeze(-1) >= probabilities.step * 0.5
    return kept.gather(-1, more).to(scores.dtype)


def _encode(linear: Linear, x: Tensor) -> Tensor:
    """The codes that ``linear`` reads, as fp32."""
    quantizer = linear.input_quantizer
    return quantizer.encode(x).float() if isinstance(quantizer, ElasticQuantizer) else _signs(x)


def _state(point: ActivationPoint, x: Tensor) -> Tensor:
    return point.quantizer.encode(x).float() if isinstance(point.quantizer, ElasticQuantizer) else _signs(x)


def _signs(x: Tensor) -> Tensor:
    return (x >= 0).float() * 2 - 1


def _step(point: ActivationPoint) -> Tensor:
    assert isinstance(point.quantizer, ElasticQuantizer)
    return point.quantizer.step


def _weight(linear: Linear) -> _Weight:
    quantizer = linear.weight_quantizer
    assert isinstance(quantizer, BinaryQuantizer), "is_binarized says so"
    signs, scale = quantizer.encode(linear.weight)
    scale = scale.expand(len(signs))
    if isinstance(linear.input_quantizer, ElasticQuantizer):
        scale = linear.input_quantizer.step * scale
    return _Weight(signs.float(), scale)
