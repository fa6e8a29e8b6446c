r"""One-bit weights and activations: BiBERT (Qin et al. 2022, arXiv 2203.06390, §3; spec/bibert.md §2–§4).

sgn(x) = +1 where x ≥ 0 (−0 included), else −1. The released code takes ``torch.sign``, which gives 0 for 0 and makes
it ternary; a bit has no third value, so training must not have one either.

Every straight-through gradient here is 1 where the decided number is within [−1, 1], bounds included, else 0: the
paper's formula. (The released code leaves the bounds out for queries, keys, values and attention; with head size 64
that is where a score is ±8.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Scales are above 0 in every artifact. A row of zeros has the smallest normal one, which adds nothing to any sum.
SMALLEST_SCALE = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class BinaryQuantizer:
    r"""Centred sign of a weight matrix, one scale a row. Over the n weights of a row:

        q(w)_i = α · b_i,   b_i = sgn(w_i − μ),   μ = mean of w,   α = mean of |w|

        ∂L/∂w = m − mean(m),   m_i = ∂L/∂q_i where |w_i − μ| ≤ 1, else 0

    The scale is that of the row as it is, not of the centred one (for which mean |w − μ| would fit best), and carries
    no gradient; the gradient is not multiplied by it. A row of zeros has bits +1 and α = 2⁻¹²⁶. A NaN weight gives a
    NaN row.

    Sums run in fp64 along each row: exact for up to 2²⁹ equal numbers, so that the quantizer is idempotent and its
    result independent of threads.

    Source: BiBERT §3.1 and its released code.
    """

    def __call__(self, weight: Tensor) -> Tensor:
        return self.fake_quantize(weight)

    @property
    def rows_are_independent(self) -> bool:
        """A row's bits and scale depend on no other row, so an embedding may quantize only the rows it looks up."""
        return True

    def fake_quantize(self, weight: Tensor) -> Tensor:
        """weight fp32 [rows, cols] → q(weight) fp32 [rows, cols], equal bit for bit to ``decode(*encode(weight))``."""
        quantized: Tensor = _CentredSign.apply(weight, self)
        return quantized

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """x·q(w)ᵀ + bias as α·(x·bᵀ) + bias: x [..., cols], weight [rows, cols], bias [rows] → [..., rows].

        Of signs x the inner sum is an exact integer, so y depends on no order of addition and a tie is one: the sign of
        α − α + … + α is otherwise that of its rounding errors. Gradients are those of the product with q(w).
        """
        y: Tensor = _Product.apply(x, weight, bias, self)
        return y

    @torch.no_grad()
    def encode(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """weight fp32 [rows, cols] → (b int8 [rows, cols], α fp32 [rows])."""
        centred, scale = self._centre(weight)
        return _step(centred, -1.0).to(torch.int8), scale.squeeze(1)

    @staticmethod
    def decode(codes: Tensor, scale: Tensor) -> Tensor:
        """(b int8 [rows, cols], α fp32 [rows]) → α·b fp32 [rows, cols]."""
        return codes.to(torch.float32, copy=True).mul_(scale.unsqueeze(1))

    @staticmethod
    def _centre(weight: Tensor) -> tuple[Tensor, Tensor]:
        """weight [rows, cols] → (w − μ, newly allocated; α [rows, 1])."""
        if weight.dim() != 2:
            raise ValueError(f"a weight of shape {tuple(weight.shape)}; the binary quantizer takes [rows, cols]")
        mean = weight.mean(dim=1, keepdim=True, dtype=torch.float64).to(torch.float32)
        scale = weight.abs().mean(dim=1, keepdim=True, dtype=torch.float64).to(torch.float32)
        # NaN and infinite weights make the scale NaN, so that a diverged row cannot pass as a good one.
        return weight - mean, (scale + 0 * scale).clamp_(min=SMALLEST_SCALE)


class _CentredSign(torch.autograd.Function):
    """Forward α·sgn(w − μ), backward the masked and centred gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, quantizer: BinaryQuantizer) -> Tensor:
        centred, scale = quantizer._centre(weight)
        ctx.save_for_backward(centred.abs() <= 1)
        return _step(centred, -1.0).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (within,) = ctx.saved_tensors
        return _through_the_sign(grads[0], within), None


class _Product(torch.autograd.Function):
    """Forward α·(x·bᵀ) + bias, backward as through x·q(w)ᵀ + bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, quantizer: BinaryQuantizer) -> Tensor:
        centred, scale = quantizer._centre(weight)
        codes, scale = _step(centred, -1.0), scale.squeeze(1)
        ctx.save_for_backward(x, codes, scale, centred.abs() <= 1)
        return F.linear(x, codes).mul_(scale).add_(bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, codes, scale, within = ctx.saved_tensors
        rows = grads[0].flatten(0, -2)
        by_weight = _through_the_sign(rows.t() @ x.flatten(0, -2), within)
        return (grads[0] * scale) @ codes, by_weight, rows.sum(dim=0), None


def _through_the_sign(gradient: Tensor, within: Tensor) -> Tensor:
    """∂L/∂q [rows, cols] → ∂L/∂w; ``within``: where |w − μ| ≤ 1."""
    masked = gradient * within
    return masked - masked.mean(dim=1, keepdim=True)


class SignQuantizer(nn.Module):
    r"""Activations as bits: q(x) = sgn(x), without scale or shift; ∂q/∂x = 1 where |x| ≤ 1, else 0.

    Source: BiBERT §3.1. An activation scale is left out by design: it would cost work at run time.
    """

    keeps_only_signs = True  # what :class:`FeedForward` asks for before it applies an activation function

    def forward(self, x: Tensor, kind: str, mask: Tensor | None = None) -> Tensor:
        """x fp32 of any shape → ±1. ``kind`` and ``mask`` as other activation quantizers have them, without effect: a
        sign depends on no other element."""
        signs: Tensor = _Step.apply(x, -1.0)
        return signs


class BooleanAttention(nn.Module):
    r"""Bi-Attention: weights bool(A) in the place of softmax(A), for scores A = Q·Kᵀ/√d, masked.

        bool(x) = 1 where x ≥ 0, else 0;   ∂bool/∂x = 1 where |x| ≤ 1, else 0

    A tie attends. Ties are common: with d = 64 and fair bits a tenth of all scores are 0. A masked score is far below
    0, so padding is never attended. A dropped weight is one that does not attend; dropping scores, as the released code
    does, would here switch padded pairs on.

    Source: BiBERT §3.2; the released code attends where x > 0 only.
    """

    def forward(self, scores: Tensor) -> Tensor:
        """Masked scores fp32 [B, h, T, T] → 0 or 1."""
        weights: Tensor = _Step.apply(scores, 0.0)
        return weights


class _Step(torch.autograd.Function):
    """Forward 1 where x ≥ 0, else ``low``; backward the identity within [−1, 1]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float) -> Tensor:
        ctx.save_for_backward(x.abs() <= 1)
        return _step(x, low)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (within,) = ctx.saved_tensors
        return grads[0] * within, None


def _step(x: Tensor, low: float) -> Tensor:
    """1 where x ≥ 0, else ``low``."""
    return (x >= 0).to(x.dtype).mul_(1 - low).add_(low)
