r"""One-bit weights and activations: BiBERT (Qin et al. 2022, arXiv 2203.06390, §3; spec/bibert.md §2–§4).

sgn(x) = +1 where x ≥ 0 (−0 included), else −1. The released code takes ``torch.sign``, which gives 0 for 0 and makes
it ternary; a bit has no third value, so training must not have one either.

Every straight-through gradient here is 1 where the decided number is within [−1, 1], bounds included, else 0: the
paper's formula. (The released code leaves the bounds out for queries, keys, values and attention; with head size 64
that is where a score is ±8.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitpress.quantize.elementwise import passed_within, signs

# Scales are above 0 in every artifact. A row of zeros has the smallest normal one, which adds nothing to any sum.
SMALLEST_SCALE = torch.finfo(torch.float32).tiny
SMALLEST_HALF = 2.0**-24


@dataclass(frozen=True)
class BinaryQuantizer:
    r"""Sign of a weight matrix, with one scale a row or matrix:

        q(w) = α · b,   b = sgn(w − μ),   α = mean of |w|

        ∂L/∂w = m − mean(m),   m = ∂L/∂q where |w − μ| ≤ gradient_range, else 0

    The scale is that of the weights as they are, not of the centred ones (for which mean |w − μ| would fit best), and
    carries no gradient; the gradient is not multiplied by it. Weights that are all zero have bits +1 and α = 2⁻¹²⁶. A
    NaN weight makes its scale NaN.

    Sums run in fp64 along each row, then over the rows: exact for up to 2²⁹ equal numbers, so that the quantizer is
    idempotent, and its result independent of threads.

    Args:
        group: what shares α: "row" (BiBERT, and the word embedding of BiT) or "matrix" (BiT, BinaryBERT).
        centre: what μ is the mean of, and mean(m): "row" (BiBERT), "matrix" (BiT) or "none": μ = 0 (BinaryBERT).
        gradient_range: None for the plain identity, ∂L/∂w = ∂L/∂q (BiT, BinaryBERT).
        scale_bits: 32, or 16: α rounded to half precision, and at least 2⁻²⁴.

    Source: BiBERT §3.1 and its released code; the others: BiT and its released code, spec/bit.md A3 and B.
    """

    group: str = "row"
    centre: str = "row"
    gradient_range: float | None = 1.0
    scale_bits: int = 32
    fixed_mean: float | None = None  # μ of a matrix of which only some rows are given: see for_table

    def __call__(self, weight: Tensor) -> Tensor:
        return self.fake_quantize(weight)

    @property
    def rows_are_independent(self) -> bool:
        """A row's bits and scale depend on no other row, so an embedding may quantize only the rows it looks up."""
        return self.group == "row" and (self.centre != "matrix" or self.fixed_mean is not None)

    def for_table(self, weight: Tensor) -> BinaryQuantizer:
        """What quantizes rows of ``weight`` [rows, cols] as this one quantizes them all."""
        if self.group != "row" or self.centre != "matrix":
            return self
        return replace(self, fixed_mean=float(_mean(weight.detach(), "matrix")))

    def fake_quantize(self, weight: Tensor) -> Tensor:
        """weight fp32 [rows, cols] → q(weight) fp32 [rows, cols], equal bit for bit to ``decode(*encode(weight))``."""
        quantized: Tensor = _CentredSign.apply(weight, self)
        return quantized

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor, step: Tensor | None = None) -> Tensor:
        """x·q(w)ᵀ + bias as (step·α)·(c·bᵀ) + bias with integers c = x / step: x [..., cols], weight [rows, cols], bias
        [rows] → [..., rows].

        The inner sum is an exact integer, so y depends on no order of addition and a tie is one: the sign of
        α − α + … + α is otherwise that of its rounding errors. Gradients are those of the product with q(w).

        Args:
            step: what x is multiples of, a scalar; None: x are signs.
        """
        y: Tensor = _Product.apply(x, weight, bias, self, step)
        return y

    @torch.no_grad()
    def encode(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """weight fp32 [rows, cols] → (b int8 [rows, cols], α fp32 [rows], or [1] of a matrix)."""
        centred, scale = self._centre(weight)
        return signs(centred).to(torch.int8), scale.squeeze(1)

    @staticmethod
    def decode(codes: Tensor, scale: Tensor) -> Tensor:
        """(b int8 [rows, cols], α fp32 [rows] or [1]) → α·b fp32 [rows, cols]."""
        return codes.to(torch.float32, copy=True).mul_(scale.unsqueeze(1))

    def _centre(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """weight [rows, cols] → (w − μ, newly allocated; α [rows, 1] or [1, 1])."""
        if weight.dim() != 2:
            raise ValueError(f"a weight of shape {tuple(weight.shape)}; the binary quantizer takes [rows, cols]")
        mean = _mean(weight, self.centre) if self.fixed_mean is None else self.fixed_mean
        scale = _mean(weight.abs(), self.group)
        if self.scale_bits == 16:
            scale = scale.to(torch.float16).to(torch.float32).clamp_(min=SMALLEST_HALF)
        # NaN and infinite weights make the scale NaN, so that a diverged row cannot pass as a good one.
        return weight - mean, (scale + 0 * scale).clamp_(min=SMALLEST_SCALE)

    def _backward(self, gradient: Tensor, centred: Tensor | None) -> Tensor:
        """∂L/∂q [rows, cols] → ∂L/∂w; ``centred``: w − μ, needed where there is a gradient_range."""
        if self.gradient_range is None or centred is None:
            return gradient
        masked = passed_within(gradient, centred, -self.gradient_range, self.gradient_range)
        if self.centre == "none":
            return masked
        return masked - (masked.mean(dim=1, keepdim=True) if self.centre == "row" else masked.mean())


def _mean(x: Tensor, over: str) -> Tensor:
    """Mean of x [rows, cols]: [rows, 1] over a "row", [1, 1] over the "matrix", 0 over "none"."""
    if over == "none":
        return x.new_zeros((1, 1))
    mean = x.mean(dim=1, keepdim=True, dtype=torch.float64)
    # Few enough rows for one thread: torch splits longer sums, and their result would depend on how.
    return (mean if over == "row" else mean.mean(dim=0, keepdim=True)).to(torch.float32)


class _CentredSign(torch.autograd.Function):
    """Forward α·sgn(w − μ), backward the masked and centred gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, quantizer: BinaryQuantizer) -> Tensor:
        centred, scale = quantizer._centre(weight)
        ctx.quantizer = quantizer
        ctx.save_for_backward(None if quantizer.gradient_range is None else centred)
        return signs(centred).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (centred,) = ctx.saved_tensors
        return ctx.quantizer._backward(grads[0], centred), None


class _Product(torch.autograd.Function):
    """Forward (step·α)·(c·bᵀ) + bias, backward as through x·q(w)ᵀ + bias."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, quantizer: BinaryQuantizer, step: Tensor | None
    ) -> Tensor:
        centred, scale = quantizer._centre(weight)
        codes, scale = signs(centred), scale.squeeze(1)
        ctx.quantizer = quantizer
        ctx.save_for_backward(x, codes, scale, None if quantizer.gradient_range is None else centred)
        if step is None:
            return F.linear(x, codes).mul_(scale).add_(bias)
        return F.linear((x / step).round_(), codes).mul_(scale * step).add_(bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, codes, scale, centred = ctx.saved_tensors
        rows = grads[0].flatten(0, -2)
        by_weight = ctx.quantizer._backward(rows.t() @ x.flatten(0, -2), centred)
        return (grads[0] * scale) @ codes, by_weight, rows.sum(dim=0), None, None


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


class CentredSignQuantizer(SignQuantizer):
    r"""Queries or keys as bits about their mean: q(x) = sgn(x − m); ∂q/∂x = 1 where |x − m| ≤ 1, else 0.

    m is the running mean of every channel over the real tokens of training batches, a constant to the gradient:
    m ← MOMENTUM·m + (1 − MOMENTUM)·(the batch's), from the first batch on, in training mode only; 0 before. It is the
    buffer ``mean`` (fp32 [channels]), so it travels in checkpoints.

    Bi-Attention's threshold of 0 keeps a whole bit of information only where every channel of Q and K is +1 as often as
    −1 (BiBERT §3.2 takes that for granted). A young student's hidden states are much alike, so its queries and keys
    are, and all scores of a head have one sign; about their mean they have not. Costs nothing in the end: a mean is a
    part of the bias (:func:`bitpress.quantize.fold_centres`).

    Args:
        channels: heads times features of a head.
    """

    MOMENTUM = 0.9

    mean: Tensor
    started: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("started", torch.zeros(1, dtype=torch.bool))

    def forward(self, x: Tensor, kind: str, mask: Tensor | None = None) -> Tensor:
        """x fp32 [B, h, T, d], mask bool [B, T] (None: all tokens are real) → ±1."""
        if self.training:
            self._observe(x.detach(), mask)
        return super().forward(x - self.mean.view(1, x.shape[1], 1, -1), kind, mask)

    @torch.no_grad()
    def _observe(self, x: Tensor, mask: Tensor | None) -> None:
        """Move the mean towards that of the real tokens of x."""
        rows = x.transpose(1, 2).flatten(2)  # [B, T, channels]
        rows = rows.flatten(0, 1) if mask is None else rows[mask]
        if len(rows) == 0:  # nothing but padding
            return
        mean = rows.mean(dim=0)
        self.mean.copy_(self.mean.lerp(mean, 1 - self.MOMENTUM) if self.started else mean)
        self.started.fill_(True)


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


class AllAttention(nn.Module):
    """The fully binarized baseline's sgn(softmax(A)): a probability is never negative, so every real key is attended.

    Forward 1 for real keys and 0 for padded ones, whatever the scores; the gradient is that of the softmax.

    Source: BiBERT §3.2, where its entropy of 0 bits is what Bi-Attention mends; spec/bibert.md §6.
    """

    def forward(self, scores: Tensor) -> Tensor:
        """Masked scores fp32 [B, h, T, T] → 0 or 1."""
        probabilities = scores.softmax(dim=-1)
        # Only padding has scores of this size; a real key's probability may underflow to 0, and sgn(0) is +1.
        real = (scores.detach() > torch.finfo(scores.dtype).min / 2).to(scores.dtype)
        weights: Tensor = _Replace.apply(probabilities, real)
        return weights


class _Replace(torch.autograd.Function):
    """Forward the second argument, backward the identity to the first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Step(torch.autograd.Function):
    """Forward 1 where x ≥ 0, else ``low``; backward the identity within [−1, 1]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float) -> Tensor:
        ctx.save_for_backward(x)
        # From −1 and 1 to low and 1, exact for −1 and 0.
        return signs(x) if low == -1 else signs(x).mul_((1 - low) / 2).add_((1 + low) / 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return passed_within(grads[0], x, -1.0, 1.0), None
