"""The student's forward pass in the engine's arithmetic: the same quantizers and codes, floats rounded as the engine
rounds them (docs/numerics.md).

torch adds floats in another order than the engine. That moves some value across a rounding boundary in almost every
text, one code differs by one, and after a few layers the two forward passes differ by as much as quantization noise.
Their difference then says nothing about the engine. Replayed here, student and engine must agree bit for bit, so a
single wrong code, scale or layout shows. What is shared with the engine is only the elementwise functions; integer
products, scales, attention, sums and LayerNorm are computed from the formulas, in torch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from bitpress.encoder import SequenceClassifier
from bitpress.encoder.layers import ActivationPoint, Linear
from bitpress.quantize import ActivationQuantizer, LearnedRangeQuantizer, encode_weights
from bitpress.recipes.replay.arithmetic import apply, float_linear, layer_norm, pooled
from bitpress.recipes.replay.bits import BitReplay, is_binarized
from bitpress.recipes.replay.values import ValueReplay
from bitpress.train import Batch, EncodedDataset, collate

__all__ = ["is_binarized", "replay_logits", "replayable", "sign_flips"]

BATCH_TOKENS = 2048
# By form of head, one after another.
_HEAD_FUNCTIONS = {"linear": ("tanh",), "relu": ("tanh", "relu"), "dense_relu": ("relu",), "dense_gelu": ("gelu",)}


def replayable(student: SequenceClassifier) -> bool:
    """Whether every linear but the classifier has quantized weights, and every activation is quantized."""
    encoded = encode_weights(student)
    linears = [n for n, m in student.named_modules() if isinstance(m, Linear) and n != "classifier"]
    if not all(f"{n}.weight" in encoded for n in linears):
        return False
    points = [m for m in student.modules() if isinstance(m, ActivationPoint)]
    valued = (ActivationQuantizer, LearnedRangeQuantizer)
    return is_binarized(student) or all(isinstance(point.quantizer, valued) for point in points)


def replay_logits(student: SequenceClassifier, dataset: EncodedDataset, indices: np.ndarray) -> np.ndarray:
    """Logits float32 of the examples ``indices`` (int64 [n]) of ``dataset``, as the engine must compute them: [n, C],
    or of a classifier of tokens [tokens, C], one example after another; of an encoder of sentences vectors [n, H].

    Equal to the engine's bit for bit but for a fused multiply-add that falls within 2⁻²⁹ of a rounding boundary: it is
    computed in fp64 and rounded twice.

    Args:
        student: in eval mode, on the CPU; see :func:`replayable`.
    """
    of_tokens = student.config.classifies_tokens
    lengths = dataset.lengths[indices]
    starts = np.cumsum(lengths) - lengths
    logits = np.empty((int(lengths.sum()) if of_tokens else len(indices), student.config.answer_size), np.float32)
    with torch.inference_mode():
        kind = _kind(student)
        for rows, batch in _equal_lengths(dataset, indices):
            hidden = _states(student, kind, batch)[-1]
            if student.classifier is None:
                logits[rows] = pooled(hidden, student.config.head).numpy()
                continue
            if of_tokens:
                features = hidden.flatten(0, 1)
                rows = (starts[rows, None] + np.arange(hidden.shape[1])).ravel()
            else:
                features = kind.pool(hidden[:, 0])
                for function in _HEAD_FUNCTIONS[student.config.head]:
                    features = apply(function, features)
            logits[rows] = float_linear(student.classifier, features).numpy()
    return logits


def sign_flips(student: SequenceClassifier, dataset: EncodedDataset, indices: np.ndarray) -> dict[str, list[int]]:
    """How many one-bit decisions of a binarized student differ between torch's roundings and the engine's: signs of
    the hidden states that enter each layer, and last those that leave the last one.

    A flip in one layer brings others in the layers after it.

    Returns:
        ``flipped`` and ``of``, L + 1 numbers each.
    """
    flipped, total = np.zeros(len(student.layers) + 1, np.int64), np.zeros(len(student.layers) + 1, np.int64)
    with torch.inference_mode():
        kind = _kind(student)
        for _, batch in _equal_lengths(dataset, indices):
            ours = student(batch.input_ids, None, batch.token_type_ids, collect=True).hidden_states
            for i, (x, y) in enumerate(zip(ours, _states(student, kind, batch), strict=True)):
                flipped[i] += int(((x >= 0) != (y >= 0)).sum())
                total[i] += x.numel()
    return {"flipped": flipped.tolist(), "of": total.tolist()}


def _kind(student: SequenceClassifier) -> BitReplay | ValueReplay:
    return BitReplay(student) if is_binarized(student) else ValueReplay(student)


def _equal_lengths(dataset: EncodedDataset, indices: np.ndarray) -> Iterator[tuple[np.ndarray, Batch]]:
    """Batches of examples of one length, so without padding, with their rows in ``indices``."""
    lengths = dataset.lengths[indices]
    for length in np.unique(lengths):
        same = np.flatnonzero(lengths == length)
        for rows in np.array_split(same, -(-len(same) * length // BATCH_TOKENS)):
            yield rows, collate(dataset, indices[rows])


def _states(student: SequenceClassifier, kind: BitReplay | ValueReplay, batch: Batch) -> list[Tensor]:
    """Hidden states [B, T, H]: the embeddings' output, then each layer's."""
    e = student.embeddings
    ids, types = batch.input_ids, batch.token_type_ids
    hidden = layer_norm(e.norm, (e.word(ids) + e.types(types)) + e.position.first(ids.shape[1]))
    states = [hidden if e.projection is None else float_linear(e.projection, hidden)]
    for i in range(len(student.layers)):
        states.append(kind.layer(i, states[-1]))
    return states
