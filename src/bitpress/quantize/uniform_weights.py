"""Uniform weights of 8, 4, 3 or 2 bits: ŵ = scale·code + offset, over groups of a matrix [rows, cols] = [outputs,
inputs] (Q-BERT, Shen et al. 2020, arXiv 1909.05840, §3.1; symmetric: Q8BERT, Zafrir et al. 2019, arXiv 1910.06188).

uniform.py quantizes activations; this is its counterpart for weights. Scales and offsets are computed once, here, while
training; the file carries these very numbers. Only divisions, roundings, minima and maxima enter, so nothing depends on
the number of threads, and every group depends on its own weights alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitpress.errors import RecipeError
from bitpress.quantize.groups import UNIFORM_GROUPS, Groups, check_group_size
from bitpress.quantize.weight_ranges import (
    default_percentile,
    least_squares_interval,
    percentile_bound,
    percentile_interval,
)

BITS = (8, 4, 3, 2)
BOUNDS = ("minmax", "percentile", "mse")

# Below the smallest normal fp32 number the quotient w / scale may be far off, and with it the bound on the codes.
_MIN_SCALE = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class UniformWeightQuantizer:
    r"""Uniform quantization of weights, symmetric or not, with a straight-through gradient.

    With w' = clamp(w, −c, c) where a clip c is given, b bits, and over one group of w':

        asymmetric   scale = (hi − lo) / (2^b − 1),  offset = lo
                     code = clamp(round((w' − lo) / scale), 0, 2^b − 1),        q(w) = scale·code + offset
        symmetric    M = 2^(b−1) − 1,  scale = hi / M
                     q = clamp(round(w' / scale), −M, M),  code = q + 2^(b−1),  q(w) = scale·q    (code 0 never occurs)

        bounds       minmax: lo = min w', hi = max w', or max |w'|; percentile, mse: a part of that, weight_ranges.py

        ∂q/∂w = 1,  and 0 where |w| ≥ c (inclusive, on the unclipped w) or w' is outside [lo, hi], or [−hi, hi].
        scale and offset carry no gradient.

    ``pair_bound`` (8 bits, symmetric): AVX2 multiplies unsigned 8-bit activations a by signed 8-bit weights q and adds
    neighbouring products into 16 bits with saturation: a_k·q_k + a_{k+1}·q_{k+1}, k even. With a ≤ 255 it cannot
    saturate where |q_k| + |q_{k+1}| ≤ 128, because 255·128 = 32,640 ≤ 32,767. So

        scale = max over pairs (k, k+1), k even, of (|w'_k| + |w'_{k+1}|) / 127        (an odd last column is alone)

    Then the sum of two codes is at most 128. Proof: all numbers are fp32 and scale is normal, so the sum, the division
    by 127 and the quotients x_k = |w'_k| / scale carry one relative error of at most u = 2⁻²⁴ each, hence
    x_k + x_{k+1} ≤ 127·(1 + 4u). Rounding to an integer adds at most 1/2 to each: |q_k| + |q_{k+1}| ≤ 128 + 508u, and
    508u < 1 while the left side is an integer. (Where w'_k / scale underflows it rounds to 0 either way.) The scale
    is 1 to 2 times that of plain 8 bits. By row it is 1.4 times on average, in normal random numbers and in a trained
    encoder alike: 7.5 effective bits, for a kernel 1.3 times as fast as one that has to widen the products first.

    Groups: "matrix" (one), "row", "row_block" (``group_size`` rows), "input" (``group_size`` neighbouring inputs of one
    row); the last block or group may be smaller. A group of equal weights, or one so small that its scale is no normal
    fp32 number, has scale 1: symmetric weights are then 0, asymmetric ones keep lo. A NaN weight gives a NaN group.

    Args:
        bits: 8, 4, 3 or 2.
        symmetric: which formula.
        group, group_size: what shares a scale. group_size: rows for "row_block", for "input" a multiple of 32; unused
            with "matrix" and "row".
        pair_bound: see above; only with bits 8 and symmetric.
        clip: c > 0, or None for no clipping.
        bounds: "minmax"; "percentile": [lo, hi] without the outermost weights of a group, of which ``percentile`` per
            cent stay; "mse": the [lo, hi] of least squared error, found by quantizing 80 times (symmetric: 32), so for
            training of few steps or none. Not with ``pair_bound``.
        percentile: above 50 and at most 100, or None for that of the width, :func:`default_percentile`; unused with
            other bounds.

    Raises:
        RecipeError: an argument is none of the above.
    """

    bits: int = 8
    symmetric: bool = True
    group: str = "row"
    group_size: int | None = None
    pair_bound: bool = False
    clip: float | None = None
    bounds: str = "minmax"
    percentile: float | None = None

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise RecipeError(f"bits is {self.bits!r}; allowed: {', '.join(map(str, BITS))}")
        if self.group not in UNIFORM_GROUPS:
            raise RecipeError(f"group is {self.group!r}; allowed: {', '.join(UNIFORM_GROUPS)}")
        check_group_size(self.group, self.group_size)
        if self.pair_bound and (self.bits != 8 or not self.symmetric):
            raise RecipeError("pair_bound is True; allowed with bits 8 and symmetric only")
        if self.clip is not None and not self.clip > 0:
            raise RecipeError(f"clip is {self.clip!r}; allowed: a number above 0, or null for no clipping")
        if self.bounds not in BOUNDS:
            raise RecipeError(f"bounds is {self.bounds!r}; allowed: {', '.join(BOUNDS)}")
        if self.pair_bound and self.bounds != "minmax":
            raise RecipeError(f"pair_bound is True with bounds {self.bounds!r}; allowed with bounds minmax only")
        check_percentile(self.percentile)

    def __call__(self, weight: Tensor) -> Tensor:
        return self.fake_quantize(weight)

    @property
    def rows_are_independent(self) -> bool:
        """A row's codes and scales depend on no other row, so an embedding may quantize only the rows it looks up."""
        return self.group in ("row", "input")

    def fake_quantize(self, weight: Tensor) -> Tensor:
        """weight fp32 [rows, cols] → q(weight), equal bit for bit to ``decode(*encode(weight))``."""
        quantized: Tensor = _StraightThrough.apply(self._clipped(weight), self)
        return quantized

    @torch.no_grad()
    def encode(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """weight fp32 [rows, cols] → (codes uint8 [rows, cols], scale fp32, offset fp32 as the scale or None).

        The scale is [1] for "matrix", [rows], [ceil(rows / group_size)] or [rows, ceil(cols / group_size)].
        """
        codes, scale, offset = self._quantize(self._clipped(weight))
        return codes.to(torch.uint8), scale, offset

    def decode(self, codes: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
        """What ``encode`` gave → q(weight) fp32 [rows, cols]."""
        return self._decode_(codes.to(torch.float32, copy=True), scale, offset)

    def _clipped(self, weight: Tensor) -> Tensor:
        """w', by ``hardtanh``: its gradient is 0 on the bounds too, where that of ``clamp`` is 1."""
        if weight.dim() != 2:
            raise ValueError(f"shape {tuple(weight.shape)}; the uniform weight quantizer takes [rows, cols]")
        return weight if self.clip is None else F.hardtanh(weight, -self.clip, self.clip)

    def _quantize(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """w' → (codes as fp32, newly allocated; scale and offset by group)."""
        if self.pair_bound:
            groups, pairs = self._groups.of_pairs(weight.abs())
            highest = groups.reduce(pairs, _largest)
            return self._symmetric(weight, _normal(highest / torch.full_like(highest, 127)))
        return self._within(weight, *self._interval(weight))

    @property
    def _groups(self) -> Groups:
        return Groups(self.group, self.group_size)

    def _interval(self, weight: Tensor) -> tuple[Tensor | None, Tensor]:
        """lo and hi of each group; lo None: symmetric."""
        groups = self._groups
        if self.bounds == "percentile":
            kept = default_percentile(self.bits, self.symmetric) if self.percentile is None else self.percentile
            if self.symmetric:
                return None, percentile_bound(weight.abs(), groups, kept)
            return percentile_interval(weight, groups, kept)
        low = None if self.symmetric else groups.reduce(weight, lambda part: part.amin(dim=-1))
        high = groups.reduce(weight.abs() if self.symmetric else weight, _largest)
        if self.bounds == "minmax":
            return low, high

        def fit(low: Tensor | None, high: Tensor) -> Tensor:
            return self._decode_(*self._within(weight, low, high))

        return least_squares_interval(weight, groups, low, high, fit)

    def _within(self, weight: Tensor, low: Tensor | None, high: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """As ``_quantize``, on the levels between lo and hi."""
        if low is None:
            return self._symmetric(weight, _normal(high / torch.full_like(high, 2 ** (self.bits - 1) - 1)))
        # + 0 turns an offset of −0 into +0: with −0, a code computed as −0 would decode to another zero than code 0.
        offset = low + 0.0
        scale = _normal((high - offset) / torch.full_like(offset, 2**self.bits - 1))
        codes = (weight - self._spread(offset, weight)).div_(self._spread(scale, weight))
        return codes.round_().clamp_(0, 2**self.bits - 1), scale, offset

    def _symmetric(self, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, None]:
        largest = 2 ** (self.bits - 1) - 1
        codes = (weight / self._spread(scale, weight)).round_().clamp_(-largest, largest)
        return codes.add_(largest + 1), scale, None

    def _inside(self, weight: Tensor, low: Tensor | None, high: Tensor) -> Tensor:
        """Where w' is in [lo, hi], ends included: bool [rows, cols]."""
        below = weight <= self._spread(high, weight)
        return below & (weight >= self._spread(-high if low is None else low, weight))

    def _spread(self, values: Tensor, like: Tensor) -> Tensor:
        """A value a group → broadcastable to [rows, cols] of ``like``."""
        return self._groups.spread(values, like)

    def _decode_(self, codes: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
        """q(w) in place on the codes: one rounded product, then one rounded sum, never a fused one."""
        if offset is None:
            return codes.sub_(2 ** (self.bits - 1)).mul_(self._spread(scale, codes))
        return codes.mul_(self._spread(scale, codes)).add_(self._spread(offset, codes))


class _StraightThrough(torch.autograd.Function):
    """Forward q(w); backward the identity, or 0 outside an interval that is narrower than the weights. Keeps nothing
    for the backward pass but that mask."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, quantizer: UniformWeightQuantizer) -> Tensor:
        if quantizer.bounds == "minmax":
            return quantizer._decode_(*quantizer._quantize(weight))
        interval = quantizer._interval(weight)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(quantizer._inside(weight, *interval))
        return quantizer._decode_(*quantizer._within(weight, *interval))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        gradient = grads[0]
        for inside in ctx.saved_tensors:
            gradient = gradient * inside
        return gradient, None


def check_percentile(percentile: object, where: str = "") -> None:
    """RecipeError where ``percentile`` is neither None nor a number above 50 and at most 100."""
    if percentile is None:
        return
    if isinstance(percentile, bool) or not isinstance(percentile, (int, float)) or not 50 < percentile <= 100:
        raise RecipeError(
            f"{where}percentile is {percentile!r}; allowed: a number above 50 and at most 100, or null for that of the "
            "width"
        )


def _largest(part: Tensor) -> Tensor:
    return part.amax(dim=-1)


def _normal(scale: Tensor) -> Tensor:
    """The scale, 1 where it is no normal number; NaN stays, so that a diverged weight cannot pass as a good one."""
    return scale.masked_fill(scale < _MIN_SCALE, 1.0)
