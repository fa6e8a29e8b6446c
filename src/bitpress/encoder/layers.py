"""The three places where quantization enters the encoder: weights of linears, the word embedding, activations.

Each holds a quantizer or None. None is plain fp32 arithmetic, so the same module is the teacher and the student.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WeightQuantizer = Callable[[Tensor], Tensor]
ActivationPointQuantizer = Callable[[Tensor, str, Tensor | None], Tensor]

KINDS = ("rows", "head_rows", "head_block", "probabilities")


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """Zero each element with ``probability`` and scale the rest so that the expectation stays; identity in evaluation.

    torch draws one random float an element on a CPU, serially, which costs a tenth of a small encoder's training step.
    Here one 64-bit draw serves four elements, 16 bits each, so the probability is rounded to a multiple of 2^-16 and
    the scale is that of the rounded one.
    """
    if not training or probability == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability, training)
    dropped = min(round(probability * 65536), 65535)
    bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    keep = bits.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 32768
    return x * (keep * (65536 / (65536 - dropped)))


def keep_signs(y: Tensor, x: Tensor) -> Tensor:
    """y = f(x) of an activation function that has the sign of its argument, moved by the smallest normal number in the
    direction of x, so that it has that sign also where it underflows.

    GELU of a number below about −5.6 is −0 in fp32, and sgn(−0) is +1; the number that it stands for is negative.
    """
    return torch.add(y, x.detach().sign(), alpha=torch.finfo(y.dtype).tiny)


def is_quantizers(name: str) -> bool:
    """Whether a parameter or buffer of an encoder belongs to an activation quantizer, not to the model itself."""
    return "quantizer." in name


class Linear(nn.Linear):
    """y = x̂·Ŵᵀ + bias with Ŵ = ``weight_quantizer(weight)`` and x̂ = ``input_quantizer(x, "rows")``; a quantizer that is
    None changes nothing. Most models quantize inputs at an activation point instead, once for all linears that read
    them.

    With a ``second_weight``, of the shape of ``weight``, Ŵ is the sum of both, each quantized on its own: what ternary
    weight splitting makes of one.

    x [..., in_features], y [..., out_features]. The quantizers run once a forward call. A weight quantizer that has a
    ``linear(x, weight, bias, step)`` computes y itself; ``step`` is the input quantizer's, of which x̂ are multiples.
    """

    second_weight: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.register_parameter("second_weight", None)
        self.weight_quantizer: WeightQuantizer | None = None
        self.input_quantizer: ActivationPointQuantizer | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.input_quantizer is not None:
            x = self.input_quantizer(x, "rows", None)
        product = getattr(self.weight_quantizer, "linear", None)
        if product is not None and self.second_weight is None:
            y: Tensor = product(x, self.weight, self.bias, getattr(self.input_quantizer, "step", None))
            return y
        return F.linear(x, _quantized(self.weight_quantizer, self.weight, self.second_weight), self.bias)


def _quantized(quantizer: WeightQuantizer | None, weight: Tensor, second: Tensor | None) -> Tensor:
    first = weight if quantizer is None else quantizer(weight)
    if second is None:
        return first
    return first + (second if quantizer is None else quantizer(second))


class EmbeddingTable(nn.Module):
    """Rows of ``weight`` [V, H] by id; the row ``padding_idx`` is looked up but gets no gradient. ``second_weight`` as
    in :class:`Linear`.

    Where a quantizer's ``rows_are_independent``, only the distinct rows of the batch are quantized: for 512 tokens of
    a 30,522-row vocabulary some hundred rows a step instead of all. The gradient is dense.
    """

    second_weight: nn.Parameter | None

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_embeddings, embedding_dim))
        self.padding_idx = padding_idx
        self.register_parameter("second_weight", None)
        self.weight_quantizer: WeightQuantizer | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """ids int64 [...] → [..., H]."""
        if self.weight_quantizer is None:
            return F.embedding(ids, _quantized(None, self.weight, self.second_weight), self.padding_idx)
        unique, inverse = torch.unique(ids, return_inverse=True)
        rows = self._rows(unique, self.weight)
        if self.second_weight is not None:
            rows = rows + self._rows(unique, self.second_weight)
        return F.embedding(inverse, rows)

    def first(self, rows: int) -> Tensor:
        """Rows 0 to ``rows`` - 1 → [rows, H]."""
        if self.weight_quantizer is None:
            return _quantized(None, self.weight, self.second_weight)[:rows]
        return self(torch.arange(rows, device=self.weight.device))

    def _rows(self, ids: Tensor, weight: Tensor) -> Tensor:
        """Rows ``ids`` of the quantized ``weight``."""
        quantizer = self.weight_quantizer
        for_table = getattr(quantizer, "for_table", None)
        if for_table is not None:  # fixes what it needs of the other rows
            quantizer = for_table(weight)
        assert quantizer is not None, "the caller asked"
        if getattr(quantizer, "rows_are_independent", False):
            for_rows = getattr(quantizer, "for_rows", None)
            if for_rows is not None:  # has numbers of its own for each row
                quantizer = for_rows(ids)
            return quantizer(F.embedding(ids, weight, self.padding_idx))
        # A scale of several rows depends on some that are not in the batch.
        return F.embedding(ids, quantizer(weight), self.padding_idx)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}, padding_idx={self.padding_idx}"


class ActivationPoint(nn.Module):
    """A named place in the forward pass where an activation may be quantized; the identity while ``quantizer`` is None.

    ``kind`` says which elements share a range:
      rows           [..., H]          the last dimension (one token)
      head_rows      [B, heads, T, d]  the last dimension (one token of one head)
      head_block     [B, heads, T, d]  the real tokens of one sequence and head
      probabilities  [B, heads, T, T]  the last dimension, lower end fixed at 0
    """

    def __init__(self, name: str, kind: str) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
        self.name = name
        self.kind = kind
        self.quantizer: ActivationPointQuantizer | None = None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x → x̂ of the same shape; mask bool [B, T], True at real tokens (None: all): padding is part of no range."""
        return x if self.quantizer is None else self.quantizer(x, self.kind, mask)

    def extra_repr(self) -> str:
        return f"{self.name}, kind={self.kind}"
