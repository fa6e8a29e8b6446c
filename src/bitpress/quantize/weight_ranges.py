"""Which part [low, high] of the values of a group the levels of uniform weights span, where it is not min to max.

Q-BERT (Shen et al. 2020, arXiv 1909.05840, §3.1) takes "usually a sub-interval of [min, max]" and does not say which.
Two rules, both functions of a group's own weights alone and of nothing random:

    percentile   what is left when weights are cut off, the same number at either end; how many, by width if not told
    mse          of many intervals, the one with the least squared error of its quantized weights
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from bitpress.quantize.groups import Groups

# Ends of intervals that the search tries are this many equal steps apart, from min to max.
STEPS = 32

# Per cent of normally distributed weights within equidistant levels of least squared error (J. Max 1960, "Quantizing
# for minimum distortion", Table II): 2^b levels where they are asymmetric, 2^b − 1 where they are symmetric.
_NORMAL_PERCENTILES = {
    False: {8: 99.991, 4: 98.8, 3: 96, 2: 86.5},
    True: {8: 99.991, 4: 98.7, 3: 94.9, 2: 77.9},
}

Fit = Callable[[Tensor | None, Tensor], Tensor]


def default_percentile(bits: int, symmetric: bool) -> float:
    """How many per cent of a group's weights the levels of ``bits`` bits should span: the interval of least squared
    error of normally distributed weights. Fewer bits have coarser levels, so it pays to cut off more."""
    return _NORMAL_PERCENTILES[symmetric][bits]


def percentile_interval(values: Tensor, groups: Groups, percentile: float) -> tuple[Tensor, Tensor]:
    """The smallest and largest value of each group without the floor(n·(100 − percentile) / 200) outermost of its n
    values at either end, at most all but one or two.

    NaN and infinite values make an interval NaN, as they would make min and max useless.
    """

    def end(part: Tensor, from_below: bool) -> Tensor:
        n = part.shape[-1]
        # The decimal as it was written: 99.9 as a float is less, and 1 in 20,000 would not be cut.
        cut = min(int(n * (100 - Fraction(str(percentile))) / 200), (n - 1) // 2)
        return _ordered(part, cut if from_below else n - 1 - cut)

    finite = 0 * groups.reduce(values, lambda part: part.amax(-1)) * groups.reduce(values, lambda part: part.amin(-1))
    low = groups.reduce(values, lambda part: end(part, True))
    return low + finite, groups.reduce(values, lambda part: end(part, False)) + finite


def percentile_bound(magnitude: Tensor, groups: Groups, percentile: float) -> Tensor:
    """The largest of each group without the floor(n·(100 − percentile) / 100) largest of its n magnitudes, at least one
    of which stays; NaN as in :func:`percentile_interval`."""

    def largest(part: Tensor) -> Tensor:
        n = part.shape[-1]
        cut = min(int(n * (100 - Fraction(str(percentile))) / 100), n - 1)
        return _ordered(part, n - 1 - cut)

    return groups.reduce(magnitude, largest) + 0 * groups.reduce(magnitude, lambda part: part.amax(-1))


def _ordered(values: Tensor, place: int) -> Tensor:
    """What stands at ``place``, counted from 0, of the sorted last dimension."""
    if values.device.type != "cpu":
        return values.kthvalue(place + 1, dim=-1).values
    # numpy selects with vector instructions, ten times as fast: with kthvalue this would be a third of a training step.
    return torch.from_numpy(np.partition(values.detach().numpy(), place, axis=-1)[..., place].copy())


def least_squares_interval(
    weight: Tensor, groups: Groups, low: Tensor | None, high: Tensor, fit: Fit
) -> tuple[Tensor | None, Tensor]:
    """Shrink [low, high] of each group, or [−high, high] where ``low`` is None, to where ‖w − q(w)‖² is least.

    With ends on a grid of STEPS equal parts: first both ends move in together, then the upper one alone, then the lower
    one; a group moves only to a smaller error, and the widest of equally good intervals stays. The error therefore
    never exceeds that of min and max. One-sided moves are for groups with outliers at one end. This quantizes the
    matrix 2.5 · STEPS times, or STEPS times with ``low`` None.

    Args:
        fit: ends of every group → q(w) [rows, cols].
    """
    best = groups.sum((fit(low, high) - weight).square())
    width = high if low is None else high - low
    lowest, highest = low, high

    def attempt(new_low: Tensor | None, new_high: Tensor) -> None:
        nonlocal low, high, best
        error = groups.sum((fit(new_low, new_high) - weight).square())
        better = error < best  # False for NaN
        if new_low is not None and low is not None:
            better &= new_low < new_high
            low = torch.where(better, new_low, low)
        high = torch.where(better, new_high, high)
        best = torch.where(better, error, best)

    shrink = [width * (step / STEPS) for step in range(1, STEPS)]
    if lowest is None:
        for by in shrink:
            attempt(None, highest - by)
        return None, high
    for by in shrink[: STEPS // 2 - 1]:
        attempt(lowest + by, highest - by)
    for by in shrink:
        attempt(low, highest - by)
    for by in shrink:
        attempt(lowest + by, high)
    return low, high
