"""Ternary weights, ŵ = α·b with b ∈ {−1, 0, +1}: Li & Liu 2016 (TWN, arXiv 1605.04711) as used by TernaryBERT
(Zhang et al. 2020, arXiv 2009.12812, §3.1).

α is computed once, here, while training; the file carries that very number and nothing after training recomputes it.
All sums run in fp64, first along each row, then over the rows. That makes them independent of the number of threads
(a row is never split) and makes the quantizer exactly idempotent: k·α with α in fp32 and k < 2²⁹ has no rounding error
in fp64, so the mean of k copies of α is α.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitpress.errors import RecipeError

GROUPS = ("matrix", "row")
METHODS = ("twn", "twn-exact")

# Elements that a sum converts to fp64 at a time: 256 KiB, half of a 512 KiB level-2 cache.
_BLOCK = 1 << 15


@dataclass(frozen=True)
class TernaryQuantizer:
    r"""Threshold ternarization of a weight matrix with a straight-through gradient.

    Over a group (the matrix, or each of its rows) of n weights, with w' = clamp(w, −c, c) where a clip c is given:

        q(w)_i = α · b_i,   b_i = sign(w'_i) if |w'_i| > Δ else 0,   α = mean of |w'_i| over |w'_i| > Δ

        method "twn":        Δ = 0.7 · mean |w'|                     (the published approximation)
        method "twn-exact":  Δ and α minimise ‖w' − α·b‖². With S_k the sum of the k largest |w'|:
                             k* = argmax S_k² / k,  α = S_k* / k*,  squared error ‖w'‖² − S_k*² / k*

        ∂q/∂w = 1,  and 0 where |w| ≥ c (inclusive, on the unclipped w). α carries no gradient.

    A group in which nothing exceeds Δ (all zeros) has codes 0 and α = 1. A NaN or infinite weight gives a NaN group.

    Args:
        group: "matrix" (one α) or "row" (one α per row: the word embedding has one per vocabulary entry).
        method: "twn" or "twn-exact" (sorts; about ten times slower).
        clip: c > 0, or None for no clipping. The TernaryBERT release has 2.5.

    Raises:
        RecipeError: an argument is none of the above.

    Source: TernaryBERT §3.1; clip and the inclusive mask as in its released code.
    """

    group: str = "matrix"
    method: str = "twn"
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise RecipeError(f"group is {self.group!r}; allowed: {', '.join(GROUPS)}")
        if self.method not in METHODS:
            raise RecipeError(f"method is {self.method!r}; allowed: {', '.join(METHODS)}")
        if self.clip is not None and not self.clip > 0:
            raise RecipeError(f"clip is {self.clip!r}; allowed: a number above 0, or null for no clipping")

    def __call__(self, weight: Tensor) -> Tensor:
        return self.fake_quantize(weight)

    @property
    def rows_are_independent(self) -> bool:
        """A row's codes and scale depend on no other row, so an embedding may quantize only the rows it looks up."""
        return self.group == "row"

    def fake_quantize(self, weight: Tensor) -> Tensor:
        """weight fp32 [rows, cols] → q(weight) fp32 [rows, cols], equal bit for bit to ``decode(*encode(weight))``."""
        return straight_through(self._clipped(weight), self._ternarize)

    @torch.no_grad()
    def encode(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """weight fp32 [rows, cols] → (b int8 [rows, cols], α fp32 [1] or [rows])."""
        codes, scale = self._ternarize(self._clipped(weight))
        return codes.to(torch.int8), scale.squeeze(1)

    @staticmethod
    def decode(codes: Tensor, scale: Tensor) -> Tensor:
        """(b int8 [rows, cols], α fp32 [1] or [rows]) → α·b fp32 [rows, cols]."""
        return _scaled_(codes.to(torch.float32, copy=True), scale.unsqueeze(1))

    def _clipped(self, weight: Tensor) -> Tensor:
        """w', by ``hardtanh``: its gradient is 0 on the bounds too, where that of ``clamp`` is 1."""
        return weight if self.clip is None else F.hardtanh(weight, -self.clip, self.clip)

    def _ternarize(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """w' [rows, cols] → (b as fp32 [rows, cols], newly allocated; α [1, 1] or [rows, 1]).

        Written without boolean tensors: torch's comparisons and ``where`` are 5 to 30 times slower on CPU than its
        vectorised fp32 arithmetic.
        """
        if weight.dim() != 2:
            raise ValueError(f"a weight of shape {tuple(weight.shape)}; the ternary quantizer takes [rows, cols]")
        magnitude = weight.abs()
        total = group_sum(self.group, magnitude)
        if self.method == "twn":
            size = weight.shape[1] if self.group == "row" else weight.numel()
            threshold = (total * 0.7 / size).to(torch.float32)
        else:
            threshold = self._exact_threshold(magnitude)
        support = support_above(magnitude, threshold)
        count = over_group(self.group, support.sum(dim=1, keepdim=True))  # exact: fp32 counts to 2²⁴ in a row
        kept = support.mul_(weight)
        kept_sum = group_sum(self.group, torch.abs(kept, out=magnitude))
        # 0·total is NaN where a weight is NaN or infinite, so that a diverged weight cannot pass as a zero one.
        scale = torch.where(count > 0, kept_sum / count, 1 + 0 * total).to(torch.float32)
        # sign_ also turns −0 (0 times a negative weight) into +0, which is what a decoded zero code is.
        return kept.sign_(), scale

    def _exact_threshold(self, magnitude: Tensor) -> Tensor:
        """The largest |w'| outside the best support (0 if it is everything): |w'| [rows, cols] → Δ [1, 1] or [rows, 1].

        Any Δ between the two magnitudes around k* gives the same b. This one needs no rounding, where α/2 would. It
        never splits equal magnitudes, because at the optimum every |w'| left out is below α/2: taking in v ≥ α/2 with
        α = S_k/k raises S_k²/k, as 2·α·v + v²/k > α².
        """
        groups = magnitude if self.group == "row" else magnitude.reshape(1, -1)
        size = groups.shape[1]
        # Numbers ≥ 0 sort like their bit patterns, and torch has a radix sort for one int32 vector: six times faster.
        ascending = groups.view(torch.int32).squeeze(0).sort(dim=-1).values.view(torch.float32)
        descending = ascending.reshape(groups.shape).flip(1)
        objective = descending.cumsum(dim=1, dtype=torch.float64).square_()
        objective /= torch.arange(1, size + 1, dtype=torch.float64, device=magnitude.device)
        support_size = objective.argmax(dim=1, keepdim=True) + 1
        left_out = torch.cat([descending, descending.new_zeros(len(groups), 1)], dim=1)
        return left_out.gather(1, support_size)


def support_above(magnitude: Tensor, threshold: Tensor) -> Tensor:
    """1 where |w| > threshold, else 0: [rows, cols] and [1, 1] or [rows, 1] → fp32, newly allocated. An IEEE difference
    is 0 only between equal numbers."""
    return (magnitude - threshold).clamp_(min=0).sign_()


def group_sum(group: str, values: Tensor, factors: Tensor | None = None) -> Tensor:
    """Sum over each group, of products where there are ``factors``, in fp64: fp32 [rows, cols] → fp64 [1, 1] or
    [rows, 1].

    torch converts before it adds; a block at a time, the fp64 copies stay in the cache.
    """
    rows = max(1, _BLOCK // max(1, values.shape[1]))
    if factors is None:
        sums = [block.sum(dim=1, keepdim=True, dtype=torch.float64) for block in values.split(rows)]
    else:
        pairs = zip(values.split(rows), factors.split(rows), strict=True)
        sums = [(a.double() * b).sum(dim=1, keepdim=True) for a, b in pairs]
    return over_group(group, torch.cat(sums))


def over_group(group: str, row_sums: Tensor) -> Tensor:
    """[rows, 1] → fp64 [1, 1] for a matrix, [rows, 1] for rows."""
    row_sums = row_sums.to(torch.float64)
    return row_sums if group == "row" else row_sums.sum(dim=0, keepdim=True)


def straight_through(weight: Tensor, ternarize: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """α·b with the gradient of the identity. ``ternarize``: w → (b as fp32, newly allocated; α broadcastable to it)."""
    quantized: Tensor = _StraightThrough.apply(weight, ternarize)
    return quantized


class _StraightThrough(torch.autograd.Function):
    """Forward α·b, backward the identity. Keeps nothing for the backward pass."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ternarize: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        return _scaled_(*ternarize(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _scaled_(codes: Tensor, scale: Tensor) -> Tensor:
    """α·b, in place on b [rows, cols]; α [1, 1] or [rows, 1]."""
    return codes.mul_(scale)
