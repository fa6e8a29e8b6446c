"""The student's forward pass in the engine's arithmetic: the same quantizers and codes, floats rounded as the engine
rounds them (docs/numerics.md).

torch adds floats in another order than the engine. That moves some value across a rounding boundary in almost every
text, one code differs by one, and after a few layers the two forward passes differ by as much as quantization noise.
Their difference then says nothing about the engine. Replayed here, student and engine must agree bit for bit, so a
single wrong code, scale or layout shows. What is shared with the engine is only the elementwise functions; integer
products, scales, attention, sums and LayerNorm are computed from the formulas, in torch.

Shapes: B texts of T tokens each, unpadded; H hidden size, h heads, d features of a head, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bitpress.encoder import SequenceClassifier
from bitpress.encoder.layers import ActivationPoint, Linear
from bitpress.encoder.model import Attention, FeedForward, Layer
from bitpress.quantize import ActivationQuantizer, TernaryQuantizer, UniformWeightQuantizer, encode_weights
from bitpress.runtime.engine import apply_function
from bitpress.train import EncodedDataset, collate

LANES = 16  # kLanes of native/kernels/numerics.h
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class _Weight:
    """A linear's weight = scale·w + offset: integers w as fp32 [outputs, inputs], scale [outputs, groups], offset the
    same or None; a group is ``group_inputs`` neighbouring inputs."""

    integers: Tensor
    scale: Tensor
    offset: Tensor | None
    group_inputs: int


_Weights = dict[str, _Weight]  # by the name of the linear


def replayable(student: SequenceClassifier) -> bool:
    """Whether every linear but the classifier has quantized weights, and every activation is quantized."""
    encoded = encode_weights(student)
    linears = [n for n, m in student.named_modules() if isinstance(m, Linear) and n != "classifier"]
    points = [m for m in student.modules() if isinstance(m, ActivationPoint)]
    return all(f"{n}.weight" in encoded for n in linears) and all(
        isinstance(point.quantizer, ActivationQuantizer) for point in points
    )


def replay_logits(student: SequenceClassifier, dataset: EncodedDataset, indices: np.ndarray) -> np.ndarray:
    """Logits float32 [n, C] of the examples ``indices`` (int64 [n]) of ``dataset``, as the engine must compute them.

    Equal to the engine's bit for bit but for a fused multiply-add that falls within 2⁻²⁹ of a rounding boundary: it is
    computed in fp64 and rounded twice.

    Args:
        student: in eval mode, on the CPU; see :func:`replayable`.
    """
    weights = {name: _weight(m) for name, m in student.named_modules() if isinstance(m, Linear) and m.weight_quantizer}
    logits = np.empty((len(indices), student.config.num_labels), np.float32)
    lengths = dataset.lengths[indices]
    with torch.inference_mode():
        for length in np.unique(lengths):
            same = np.flatnonzero(lengths == length)
            for rows in np.array_split(same, -(-len(same) * length // BATCH_TOKENS)):
                batch = collate(dataset, indices[rows])
                logits[rows] = _forward(student, weights, batch.input_ids, batch.token_type_ids).numpy()
    return logits


def _forward(student: SequenceClassifier, weights: _Weights, ids: Tensor, types: Tensor) -> Tensor:
    e = student.embeddings
    total = (e.word(ids) + e.token_type(types)) + e.position.weight[: ids.shape[1]]
    hidden = _layer_norm(e.norm, total)
    for i, layer in enumerate(student.layers):
        assert isinstance(layer, Layer)
        hidden = _attention(layer.attention, weights, f"layers.{i}.attention", hidden)
        hidden = _feed_forward(layer.ffn, weights, f"layers.{i}.ffn", hidden, student.config.hidden_act)
    pooled = _linear(student.pooler.dense, weights["pooler.dense"], _encode(student.pooler.input, hidden[:, 0]))
    return _float_linear(student.classifier, _apply("tanh", pooled))


def _attention(module: Attention, weights: _Weights, name: str, hidden: Tensor) -> Tensor:
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
    root = _sqrt(torch.tensor(float(d)))
    products = _fma(s_k, _product(q, k.transpose(-1, -2)), o_k * q.sum(-1, keepdim=True))
    scores = _fma(s_q / root, products, (o_q / root) * _fma(s_k, sum_k, d * o_k))
    p, s_p = _probability_codes(module.probabilities, scores)
    context = s_p * _fma(s_v, _product(p, v), o_v * p.sum(-1, keepdim=True))
    context = context.transpose(1, 2).reshape(hidden.shape)
    output = _linear(module.output, weights[f"{name}.output"], _encode(module.context, context))
    return _layer_norm(module.norm, output + hidden)


def _feed_forward(module: FeedForward, weights: _Weights, name: str, hidden: Tensor, hidden_act: str) -> Tensor:
    inner = _linear(module.intermediate, weights[f"{name}.intermediate"], _encode(module.input, hidden))
    inner = _apply(hidden_act, inner)
    output = _linear(module.output, weights[f"{name}.output"], _encode(module.activation, inner))
    return _layer_norm(module.norm, output + hidden)


def _encode(point: ActivationPoint, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes as fp32 of x's shape, scale and offset, broadcastable to x."""
    assert isinstance(point.quantizer, ActivationQuantizer), "replayable says so"
    codes, scale, offset = point.quantizer.encode(x, point.kind)
    return codes.float(), scale, offset


def _probability_codes(point: ActivationPoint, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of softmax(scores) and their scale. With a range a row the largest probability is 1/Σ, and the code of
    e/Σ is that of e on a range of 1: the engine divides no probability by it. The quantizer, which does, may differ in
    a code where e·255 lies within its rounding error of a half."""
    quantizer = point.quantizer
    assert isinstance(quantizer, ActivationQuantizer), "replayable says so"
    exponentials = _apply("exp", scores - scores.amax(-1, keepdim=True))
    total = _lane_sum(exponentials)
    if quantizer.range == "static":
        codes, scale, _ = quantizer.encode(exponentials / total, point.kind)
        return codes.float(), scale
    high = 127.0 if quantizer.symmetric else 255.0
    return (exponentials * high).round(), 1.0 / total / torch.tensor(high)


def _broadcastable(x: Tensor, like: Tensor) -> Tensor:
    """A range of all dimensions of ``like``, a static one (no dimension) included, so that it can be transposed."""
    return x.expand(*like.shape[:-1], 1)


def _weight(linear: Linear) -> _Weight:
    """The weight as the engine holds it, from the quantizer's own codes."""
    quantizer = linear.weight_quantizer
    outputs, inputs = linear.weight.shape
    if isinstance(quantizer, TernaryQuantizer):
        codes, scale = quantizer.encode(linear.weight)
        return _Weight(codes.float(), scale.unsqueeze(1).expand(outputs, 1), None, inputs)
    assert isinstance(quantizer, UniformWeightQuantizer), "replayable says so"
    codes, scale, offset = quantizer.encode(linear.weight)
    middle = 2 ** (quantizer.bits - 1)
    if offset is not None:  # of w = 0, where the stored one is of code 0
        offset = _fma(torch.tensor(float(middle)), scale, offset)
    by_output = [None if x is None else _by_output(x, quantizer, outputs) for x in (scale, offset)]
    assert by_output[0] is not None
    group_inputs = quantizer.group_size if quantizer.group == "input" else None
    return _Weight(codes.float() - middle, by_output[0], by_output[1], group_inputs or inputs)


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
    if weight.offset is None and weight.scale.shape[1] == 1:
        alpha, code_sum = weight.scale[:, 0], weight.integers.sum(dim=1)
        return _fma(_product(codes, weight.integers.T), scale * alpha, _fma(offset * alpha, code_sum, linear.bias))
    weight_sum = _chain(torch.ones(1, codes.shape[-1]), weight)[0]
    return _fma(scale, _chain(codes, weight), _fma(offset, weight_sum, linear.bias))


def _chain(codes: Tensor, weight: _Weight) -> Tensor:
    """Σ codes·(scale·w + offset), one group of inputs after another: codes [..., inputs] → [..., outputs]."""
    total = torch.zeros(*codes.shape[:-1], len(weight.integers))
    groups = zip(codes.split(weight.group_inputs, -1), weight.integers.split(weight.group_inputs, -1), strict=True)
    for g, (part, integers) in enumerate(groups):
        total = _fma(_product(part, integers.T), weight.scale[:, g], total)
        if weight.offset is not None:
            total = _fma(part.sum(-1, keepdim=True), weight.offset[:, g], total)
    return total


def _product(a: Tensor, b: Tensor) -> Tensor:
    """An integer matrix product, exact: in fp32 while no partial sum can pass 2²⁴, else in fp64; as fp32."""
    largest = float(a.abs().max() * b.abs().max()) * a.shape[-1]
    if largest <= 2**24:
        return torch.matmul(a, b)
    return torch.matmul(a.double(), b.double()).float()


def _float_linear(linear: Linear, x: Tensor) -> Tensor:
    """One fma chain an output, inputs in order, then the bias."""
    total = torch.zeros(len(x), linear.out_features)
    for k in range(linear.in_features):
        total = _fma(x[:, k : k + 1], linear.weight[:, k], total)
    return total + linear.bias


def _layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    n = torch.tensor(float(x.shape[-1]))
    centred = x - _lane_sum(x) / n
    deviation = _sqrt(_lane_sum(centred, squares=True) / n + torch.tensor(norm.eps, dtype=torch.float32))
    return _fma(centred / deviation, norm.weight, norm.bias)


def _lane_sum(x: Tensor, squares: bool = False) -> Tensor:
    """Sum of x (or of its squares, fused) over the last dimension, kept as size 1, in the engine's order."""
    size = x.shape[-1]
    lanes = nn.functional.pad(x, (0, -size % LANES)).unflatten(-1, (-1, LANES))
    total = torch.zeros_like(lanes[..., 0, :])
    for chunk in lanes.unbind(-2):
        total = _fma(chunk, chunk, total) if squares else total + chunk
    while total.shape[-1] > 1:
        low, high = total.chunk(2, dim=-1)
        total = low + high
    return total


def _fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a·b + c, the product exact and the sum rounded to fp64, then to fp32."""
    return (a.double() * b.double()).add_(c).float()


def _sqrt(x: Tensor) -> Tensor:
    """The correctly rounded root (fp64 rounded to fp32 is); torch's own in fp32 may be one unit off."""
    return torch.sqrt(x.double()).float()


def _apply(name: str, x: Tensor) -> Tensor:
    """An elementwise function of the engine."""
    x = x.contiguous().clone()
    apply_function(name, x.numpy())
    return x
