"""Layers of integers in the engine's arithmetic.

Shapes: B texts of T tokens each, unpadded; H hidden size, h heads, d features of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bitpress.encoder import SequenceClassifier
from bitpress.encoder.layers import ActivationPoint, Linear
from bitpress.encoder.model import Attention, FeedForward, Layer
from bitpress.quantize import (
    TERNARY_QUANTIZERS,
    ActivationQuantizer,
    BinaryQuantizer,
    GoboCodes,
    GoboQuantizer,
    LearnedRangeQuantizer,
    UniformWeightQuantizer,
)
from bitpress.recipes.replay.arithmetic import apply, fma, lane_sum, layer_norm, product, sqrt


@dataclass(frozen=True)
class _Weight:
    """A linear's weight = scale·w + offset: integers w as fp32 [outputs, inputs], scale [outputs, groups], offset the
    same or None; a group is ``group_inputs`` neighbouring inputs. Of split weights the second part's inputs, the same
    ones again, follow the first's. ``outliers``: (outputs, inputs, what is missing there) of the first outlier of every
    output, of the second, …; None: there are none."""

    integers: Tensor
    scale: Tensor
    offset: Tensor | None
    group_inputs: int
    outliers: list[tuple[Tensor, Tensor, Tensor]] | None = None


class ValueReplay:
    """Layers whose weights and activations are integers with scales."""

    def __init__(self, student: SequenceClassifier) -> None:
        self.student = student
        self._weights = {
            name: _weight(m) for name, m in student.named_modules() if isinstance(m, Linear) and m.weight_quantizer
        }

    def layer(self, i: int, hidden: Tensor) -> Tensor:
        """hidden [B, T, H] before layer ``i`` → after it."""
        layer = self.student.layers[i]
        assert isinstance(layer, Layer)
        hidden = _attention(layer.attention, self._weights, f"layers.{i}.attention", hidden)
        return _feed_forward(layer.ffn, self._weights, f"layers.{i}.ffn", hidden, self.student.config.hidden_act)

    def pool(self, first: Tensor) -> Tensor:
        """First tokens [B, H] → the pooler's linear [B, H]."""
        pooler = self.student.pooler
        assert pooler is not None, "of a classifier of texts"
        return _linear(pooler.dense, self._weights["pooler.dense"], _encode(pooler.input, first))


def _attention(module: Attention, weights: dict[str, _Weight], name: str, hidden: Tensor) -> Tensor:
    encoded = _encode(module.input, hidden)
    projected = (
        _linear(getattr(module, part), weights[f"{name}.{part}"], encoded) for part in ("query", "key", "value")
    )
    query, key, value = (module._split(x) for x in projected)
    q, s_q, o_q = _encode(module.query_states, query)
    k, s_k, o_k = _encode(module.key_states, key)
    v, s_v, o_v = _encode(module.value_states, value)
    d = module.head_size
    # Keys run along the last dimension of the scores.
    s_k, o_k, sum_k = (_broadcastable(x, key).transpose(-1, -2) for x in (s_k, o_k, k.sum(-1, keepdim=True)))
    root = sqrt(torch.tensor(float(d)))
    products = fma(s_k, product(q, k.transpose(-1, -2)), o_k * q.sum(-1, keepdim=True))
    scores = fma(s_q / root, products, (o_q / root) * fma(s_k, sum_k, d * o_k))
    p, s_p = _probability_codes(module.probabilities, scores)
    context = s_p * fma(s_v, product(p, v), o_v * p.sum(-1, keepdim=True))
    context = context.transpose(1, 2).flatten(2)
    output = _linear(module.output, weights[f"{name}.output"], _encode(module.context, context))
    return layer_norm(module.norm, output + hidden)


def _feed_forward(
    module: FeedForward, weights: dict[str, _Weight], name: str, hidden: Tensor, hidden_act: str
) -> Tensor:
    inner = _linear(module.intermediate, weights[f"{name}.intermediate"], _encode(module.input, hidden))
    inner = apply(hidden_act, inner)
    output = _linear(module.output, weights[f"{name}.output"], _encode(module.activation, inner))
    return layer_norm(module.norm, output + hidden)


def _encode(point: ActivationPoint, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes as fp32 of x's shape, scale and offset, broadcastable to x."""
    assert isinstance(point.quantizer, (ActivationQuantizer, LearnedRangeQuantizer)), "replayable says so"
    codes, scale, offset = point.quantizer.encode(x, point.kind)
    return codes.float(), scale, offset


def _probability_codes(point: ActivationPoint, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of softmax(scores) and their scale. With a range a row the largest probability is 1/Σ, and the code of
    e/Σ is that of e on a range of 1: the engine divides no probability by it. The quantizer, which does, may differ in
    a code where e·255 lies within its rounding error of a half."""
    quantizer = point.quantizer
    assert isinstance(quantizer, (ActivationQuantizer, LearnedRangeQuantizer)), "replayable says so"
    exponentials = apply("exp", scores - scores.amax(-1, keepdim=True))
    total = lane_sum(exponentials)
    if isinstance(quantizer, LearnedRangeQuantizer) or quantizer.range == "static":
        codes, scale, _ = quantizer.encode(exponentials / total, point.kind)
        return codes.float(), scale
    high = float(quantizer.highest)
    return (exponentials * high).round(), 1.0 / total / torch.tensor(high)


def _broadcastable(x: Tensor, like: Tensor) -> Tensor:
    """A range of all dimensions of ``like``, a static one (no dimension) included, so that it can be transposed."""
    return x.expand(*like.shape[:-1], 1)


def _weight(linear: Linear) -> _Weight:
    """The weight as the engine holds it, from the quantizer's own codes."""
    quantizer = linear.weight_quantizer
    outputs, inputs = linear.weight.shape
    if isinstance(quantizer, BinaryQuantizer):
        parts = [linear.weight, *([] if linear.second_weight is None else [linear.second_weight])]
        signs, scales = zip(*(quantizer.encode(part) for part in parts), strict=True)
        by_part = torch.stack([scale.expand(outputs) for scale in scales], dim=1)
        return _Weight(torch.cat(signs, dim=1).float(), by_part, None, inputs)
    if isinstance(quantizer, TERNARY_QUANTIZERS):
        codes, scale = quantizer.encode(linear.weight)
        return _Weight(codes.float(), scale.unsqueeze(1).expand(outputs, 1), None, inputs)
    if isinstance(quantizer, GoboQuantizer):
        encoded = quantizer.encode(linear.weight)
        table = encoded.table.to(torch.float32)
        integers = table[encoded.codes.to(torch.int64)]
        outliers = _outliers(encoded, integers * encoded.scale) if len(encoded.positions) else None
        return _Weight(integers, encoded.scale.unsqueeze(1).expand(outputs, 1), None, inputs, outliers)
    assert isinstance(quantizer, UniformWeightQuantizer), "replayable says so"
    codes, scale, offset = quantizer.encode(linear.weight)
    middle = 2 ** (quantizer.bits - 1)
    if offset is not None:  # of w = 0, where the stored one is of code 0
        offset = fma(torch.tensor(float(middle)), scale, offset)
    by_output = [None if x is None else _by_output(x, quantizer, outputs) for x in (scale, offset)]
    assert by_output[0] is not None
    group_inputs = quantizer.group_size if quantizer.group == "input" else None
    return _Weight(codes.float() - middle, by_output[0], by_output[1], group_inputs or inputs)


def _outliers(encoded: GoboCodes, values: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """As _Weight has them; ``values`` [outputs, inputs]: what the codes stand for."""
    outputs, inputs = encoded.positions // values.shape[1], encoded.positions % values.shape[1]
    deltas = encoded.values - values[outputs, inputs]
    counts = torch.bincount(outputs)
    number = torch.arange(len(outputs)) - (counts.cumsum(0) - counts)[outputs]  # of an outlier within its output
    return [(outputs[number == i], inputs[number == i], deltas[number == i]) for i in range(int(counts.max()))]


def _by_output(values: Tensor, quantizer: UniformWeightQuantizer, outputs: int) -> Tensor:
    """A value a group of the quantizer → [outputs, groups along the inputs]."""
    if quantizer.group == "input":
        return values
    if quantizer.group == "row_block":
        assert quantizer.group_size is not None
        values = values.repeat_interleave(quantizer.group_size)[:outputs]
    return values.unsqueeze(1).expand(outputs, 1)


def _linear(linear: Linear, weight: _Weight, encoded: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The two formulas of native/kernels/integer_linear/integer_linear.h."""
    codes, scale, offset = encoded
    codes = codes.repeat(*(1,) * (codes.dim() - 1), weight.integers.shape[1] // codes.shape[-1])
    if weight.offset is None and weight.outliers is None and weight.scale.shape[1] == 1:
        alpha, code_sum = weight.scale[:, 0], weight.integers.sum(dim=1)
        return fma(product(codes, weight.integers.T), scale * alpha, fma(offset * alpha, code_sum, linear.bias))
    weight_sum = _chain(torch.ones(1, codes.shape[-1]), weight)[0]
    return fma(scale, _chain(codes, weight), fma(offset, weight_sum, linear.bias))


def _chain(codes: Tensor, weight: _Weight) -> Tensor:
    """Σ codes·(scale·w + offset), one group of inputs after another, and then one outlier after another: codes
    [..., inputs] → [..., outputs]."""
    total = torch.zeros(*codes.shape[:-1], len(weight.integers))
    groups = zip(codes.split(weight.group_inputs, -1), weight.integers.split(weight.group_inputs, -1), strict=True)
    for g, (part, integers) in enumerate(groups):
        total = fma(product(part, integers.T), weight.scale[:, g], total)
        if weight.offset is not None:
            total = fma(part.sum(-1, keepdim=True), weight.offset[:, g], total)
    for outputs, inputs, deltas in weight.outliers or ():
        total[..., outputs] = fma(codes[..., inputs], deltas, total[..., outputs])
    return total
