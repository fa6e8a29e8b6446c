r"""Loss-aware ternary weights: ŵ = α·b fitted where the loss is curved (Hou & Kwok 2018, arXiv 1802.08635), the LAT of
TernaryBERT (Zhang et al. 2020, arXiv 2009.12812, §3.1, eqs. 6 and 7). Its release has TWN only.

    min over α > 0, b ∈ {−1, 0, +1}ⁿ of  Σ dᵢ·(wᵢ − α·bᵢ)²,   dᵢ = √vᵢ + 1e-8

v is Adam's second moment of the weight itself, so the quantizer reads the state of its own optimizer. A common factor
of all d changes nothing: before the first step, where v is 0, all d are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitpress.errors import RecipeError
from bitpress.quantize.ternary import GROUPS, TernaryQuantizer, group_sum, straight_through, support_above

LOSS_AWARE_METHODS = ("lat", "lat-exact")
EPSILON = 1e-8
# Alternations of the approximate method, and the change of α that ends them: as in the authors' code.
ALTERNATIONS = 10
TOLERANCE = 1e-6


class LossAwareTernaryQuantizer(nn.Module):
    r"""Ternarization by weighted least squares, with a straight-through gradient; over a group of weights w' as in
    :class:`TernaryQuantizer`.

        α(S) = Σ_S d·|w'| / Σ_S d of a support S,   q(w) = α·sign(w') on S, else 0

        method "lat-exact":  the best S. It holds the k largest |w'|, because at the optimum S = {|w'| > α/2} whatever
                             d is; k* = argmax (Σ d·|w'|)² / Σ d over the k largest.
        method "lat":        S starts as TWN's, then α = α(S) and S = {|w'| > α/2} in turn, at most ten times or until α
                             changes by less than 1e-6. (The authors start from the S of the step before. Started
                             afresh, a step depends on nothing but weights and moments.)

        ∂q/∂w = 1,  and 0 where |w| ≥ c (inclusive, on the unclipped w). α carries no gradient.

    Where the numbers come from. While training, ``second_moment`` is the optimizer's own tensor and every forward pass
    solves the problem with it. What it then holds is gone when training ends, and is not that of the best weights, so
    before every evaluation :meth:`settle` solves once more and keeps α and the threshold of S in the buffers ``scale``
    and ``threshold``. These travel with the weights, through checkpoints and as the best ones, and in eval mode they
    are what counts: evaluation, ``encode`` and the file have the same codes. Until they are set (scale 0) the problem
    is solved in eval mode too. Without a second moment all d are equal, and "lat-exact" is "twn-exact".

    Args:
        rows: of the weight; its scales are as many where ``group`` is "row".
        group, clip: as of :class:`TernaryQuantizer`.
        method: "lat", or "lat-exact", which sorts.

    Raises:
        RecipeError: an argument is none of the above.
    """

    needs_second_moment = True
    threshold: Tensor
    scale: Tensor

    def __init__(self, rows: int, group: str = "matrix", method: str = "lat", clip: float | None = None) -> None:
        super().__init__()
        if group not in GROUPS:
            raise RecipeError(f"group is {group!r}; allowed: {', '.join(GROUPS)}")
        if method not in LOSS_AWARE_METHODS:
            raise RecipeError(f"method is {method!r}; allowed: {', '.join(LOSS_AWARE_METHODS)}")
        if clip is not None and not clip > 0:
            raise RecipeError(f"clip is {clip!r}; allowed: a number above 0, or null for no clipping")
        self.group, self.method, self.clip = group, method, clip
        self.second_moment: Tensor | None = None  # not a buffer: it is the optimizer's
        groups = rows if group == "row" else 1
        self.register_buffer("threshold", torch.zeros(groups))
        self.register_buffer("scale", torch.zeros(groups))

    @property
    def rows_are_independent(self) -> bool:
        """A row's codes and scale depend on no other row, so an embedding may quantize only the rows it looks up."""
        return self.group == "row"

    def for_rows(self, ids: Tensor) -> _SomeRows:
        """What quantizes the rows ``ids`` int64 [n] of the weight, given as [n, cols], as this does them all."""
        return _SomeRows(self, ids)

    def forward(self, weight: Tensor) -> Tensor:
        """weight fp32 [rows, cols] → q(weight) fp32 [rows, cols], equal bit for bit to ``decode(*encode(weight))``."""
        return self.fake_quantize(weight)

    def fake_quantize(self, weight: Tensor) -> Tensor:
        """As ``forward``."""
        return straight_through(self._clipped(weight), self._ternarize)

    @torch.no_grad()
    def encode(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """weight fp32 [rows, cols] → (b int8 [rows, cols], α fp32 [1] or [rows]), as the next forward pass has them."""
        codes, scale = self._ternarize(self._clipped(weight))
        return codes.to(torch.int8), scale.squeeze(1)

    decode = staticmethod(TernaryQuantizer.decode)

    @torch.no_grad()
    def settle(self, weight: Tensor) -> None:
        """Fix α and the support's threshold for ``weight`` [rows, cols] and the second moment as they are now."""
        threshold, scale = self._solve(self._clipped(weight), self.second_moment)
        self.threshold.copy_(threshold.squeeze(1))
        self.scale.copy_(scale.squeeze(1))

    def extra_repr(self) -> str:
        return f"group={self.group}, method={self.method}, clip={self.clip}"

    def _clipped(self, weight: Tensor) -> Tensor:
        """w', by ``hardtanh``: its gradient is 0 on the bounds too, where that of ``clamp`` is 1."""
        return weight if self.clip is None else F.hardtanh(weight, -self.clip, self.clip)

    def _ternarize(self, weight: Tensor, ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """w' of all rows, or of ``ids``, → (b as fp32, newly allocated; α [1, 1] or [rows, 1])."""
        if weight.dim() != 2:
            raise ValueError(f"a weight of shape {tuple(weight.shape)}; the ternary quantizer takes [rows, cols]")
        if not self.training and bool((self.scale != 0).all()):
            kept = self.threshold, self.scale
            threshold, scale = ((x if ids is None else x[ids]).unsqueeze(1) for x in kept)
        else:
            moment = self.second_moment
            threshold, scale = self._solve(weight, moment if moment is None or ids is None else moment[ids])
        # sign_ also turns −0 (0 times a negative weight) into +0, which is what a decoded zero code is.
        return support_above(weight.abs(), threshold).mul_(weight).sign_(), scale

    def _solve(self, weight: Tensor, second_moment: Tensor | None) -> tuple[Tensor, Tensor]:
        """w' and v [rows, cols] → the threshold of |w'| that the support is above, and α: fp32 [1, 1] or [rows, 1]."""
        magnitude = weight.abs()
        if second_moment is None:
            curvature = torch.ones_like(magnitude)
        else:
            curvature = second_moment.sqrt().add_(EPSILON)
            # By the largest of its group: d has no scale, so that equal d are 1 and give the very numbers of TWN.
            largest = curvature.amax(dim=1, keepdim=True)
            curvature /= largest if self.group == "row" else largest.amax(dim=0, keepdim=True)
        total = group_sum(self.group, magnitude)
        if self.method == "lat-exact":
            threshold = self._exact_threshold(magnitude, curvature)
            scale = self._scale(magnitude, curvature, threshold, total)
        else:
            threshold, scale = self._alternate(magnitude, curvature, total)
        return threshold, scale.to(torch.float32)

    def _scale(self, magnitude: Tensor, curvature: Tensor, threshold: Tensor, total: Tensor) -> Tensor:
        """α(S), fp64, of the support above ``threshold``; 1 of an empty one. NaN where a weight or moment is."""
        on_support = support_above(magnitude, threshold).mul_(curvature)
        mass = group_sum(self.group, on_support)
        weighted = group_sum(self.group, on_support, magnitude)
        return torch.where(mass > 0, weighted / mass, 1 + 0 * (total + mass))

    def _alternate(self, magnitude: Tensor, curvature: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        size = magnitude.shape[1] if self.group == "row" else magnitude.numel()
        threshold = (total * 0.7 / size).to(torch.float32)
        scale = torch.full_like(total, torch.inf)
        done = torch.zeros_like(total, dtype=torch.bool)
        for _ in range(ALTERNATIONS):
            # A group that is done stays as it is, so that rows depend on none of their neighbours.
            found = torch.where(done, scale, self._scale(magnitude, curvature, threshold, total))
            done, scale = (found - scale).abs() < TOLERANCE, found
            threshold = (scale / 2).to(torch.float32)
            if bool(done.all()):
                break
        return threshold, scale

    def _exact_threshold(self, magnitude: Tensor, curvature: Tensor) -> Tensor:
        """The largest |w'| outside the best support (0 if it is everything): see ``TernaryQuantizer``, whose argument
        that equal magnitudes are never split holds for any d > 0: a magnitude left out is below α/2, and taking one
        below α/2 out raises the objective."""
        by_row = self.group == "row"
        groups, weights = (x if by_row else x.reshape(1, -1) for x in (magnitude, curvature))
        # Numbers ≥ 0 sort like their bit patterns; NaN above all.
        order = groups.contiguous().view(torch.int32).sort(dim=1, descending=True, stable=True).indices
        descending, weights = groups.gather(1, order), weights.gather(1, order).double()
        objective = (descending * weights).cumsum(dim=1).square_() / weights.cumsum(dim=1)
        support_size = objective.argmax(dim=1, keepdim=True) + 1
        left_out = torch.cat([descending, descending.new_zeros(len(groups), 1)], dim=1)
        return left_out.gather(1, support_size)


@dataclass(frozen=True)
class _SomeRows:
    """Rows of a weight, with the second moments and scales of their own."""

    whole: LossAwareTernaryQuantizer
    ids: Tensor

    def __call__(self, weight: Tensor) -> Tensor:
        whole, ids = self.whole, self.ids
        return straight_through(whole._clipped(weight), lambda clipped: whole._ternarize(clipped, ids))


# Both kinds of quantizer whose codes are −1, 0 and +1 with one scale a group.
TERNARY_QUANTIZERS = (TernaryQuantizer, LossAwareTernaryQuantizer)
