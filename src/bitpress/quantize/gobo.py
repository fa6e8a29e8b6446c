r"""GOBO: weights by a small table of values fitted to each matrix, and the few that do not fit kept as they are (Zadeh
et al., MICRO 2020, arXiv 2005.03842). Nothing is trained.

    outliers    w whose log-density under the normal distribution of its matrix is below a threshold,
                −z²/2 − ln(σ·√(2π)) < −4   with   z = (w − μ) / σ
    the others  start: bins of equal population, each with the mean of its members for a centroid;
                then: every weight to its nearest centroid, every centroid to the mean of its members, until
                Σ|w − c| falls no more. The centroids of the lowest sum are kept.

The rule for outliers depends on the unit of the weights: σ = 0.02 cuts at |z| > 3.74, σ = 0.2 at 3.06, and above
σ = e⁴ / √(2π) = 21.8 everything is an outlier. A threshold in z itself does not; which was used is in the recipe.

Sorted once, a bin is a range of the weights, its sum a difference of two prefix sums, and a step of the iteration a few
binary searches: 85 million weights take seconds, of which sorting is the most.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitpress.errors import RecipeError, TrainingError

BITS = (4, 3, 2)
OUTLIER_RULES = ("log_density", "z", "none")
OBJECTIVES = ("l1", "l2")

# Of the integers that a table has in artifacts. Two entries then add up to at most 128, which the fast kernel of CPUs
# without VNNI asks for (docs/numerics.md). The step between them is 1.6 % of the largest centroid, where those of 3
# bits are a fifth of it apart: rounding moves a centroid by at most 1/25 of the distance to the next one.
LARGEST_ENTRY = 64

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]


class GoboCodes(NamedTuple):
    """A matrix [rows, cols] as codes: codes uint8 [rows, cols]; scale fp32 [1]; table int8 [2^bits], ascending;
    positions int64 [n] of outliers, row · cols + column, ascending; values fp32 [n], their weights."""

    codes: Tensor
    scale: Tensor
    table: Tensor
    positions: Tensor
    values: Tensor


@dataclass(frozen=True)
class CodebookFit:
    """``centroids`` float64 [2^bits], ascending; ``history``: the objective with the centroids of each step, from the
    start on; ``step``: the one whose centroids these are."""

    centroids: Doubles
    history: tuple[float, ...]
    step: int


@dataclass(frozen=True)
class GoboQuantizer:
    r"""A table a matrix and a list of outliers, with a straight-through gradient.

        q(w) = w of an outlier, else scale·table[code]           (the module's text says how they are found)
        scale = max |centroid| / 64,   table = round(centroid / scale),   code: of the nearest value, the lower of two

        ∂q/∂w = 1

    The table is rounded to integers because the engine multiplies these; the codes are of the rounded values. A matrix
    of zeros, or one so small that its scale is no normal fp32 number, has scale 1 and a table of zeros.

    A matrix is fitted once, and codes and q(w) are kept while the weight stays the same: a recipe without training
    evaluates what it fitted; one with training would fit anew every step, which takes seconds for BERT-base.

    Args:
        bits: 4, 3 or 2.
        outliers: "log_density", the published rule; "z", |z| above the threshold; "none".
        threshold: of the rule: of the log-density any number, of z one above 0.
        objective: "l1" stops where Σ|w − c| falls no more, as published; "l2" goes on until no weight changes its
            centroid, which is k-means.

    Raises:
        RecipeError: an argument is none of the above.
    """

    bits: int = 3
    outliers: str = "log_density"
    threshold: float = -4.0
    objective: str = "l1"
    _kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise RecipeError(f"bits is {self.bits!r}; allowed: {', '.join(map(str, BITS))}")
        if self.objective not in OBJECTIVES:
            raise RecipeError(f"objective is {self.objective!r}; allowed: {', '.join(OBJECTIVES)}")
        check_outlier_rule(self.outliers, self.threshold)

    def __call__(self, weight: Tensor) -> Tensor:
        return self.fake_quantize(weight)

    def fake_quantize(self, weight: Tensor) -> Tensor:
        """weight fp32 [rows, cols] → q(weight), equal bit for bit to ``decode(*encode(weight))``.

        Raises:
            TrainingError, RecipeError: see :meth:`encode`.
        """
        quantized: Tensor = _StraightThrough.apply(weight, self)
        return quantized

    @torch.no_grad()
    def encode(self, weight: Tensor) -> GoboCodes:
        """weight fp32 [rows, cols] → what stands for it.

        Raises:
            TrainingError: a weight is not finite.
            RecipeError: every weight is an outlier.
        """
        if weight.dim() != 2:
            raise ValueError(f"a weight of shape {tuple(weight.shape)}; the GOBO quantizer takes [rows, cols]")
        return self._fitted(weight)[0]

    @staticmethod
    def decode(codes: Tensor, scale: Tensor, table: Tensor, positions: Tensor, values: Tensor) -> Tensor:
        """What ``encode`` gave → q(weight) fp32 [rows, cols]."""
        quantized = (table.to(torch.float32) * scale)[codes.to(torch.int32)]
        quantized.view(-1)[positions] = values
        return quantized

    def _fitted(self, weight: Tensor) -> tuple[GoboCodes, Tensor]:
        """Codes and q(w), of earlier if they are of this weight as it is."""
        of = self._kept.get("of")
        if of is not None and of() is weight and self._kept["version"] == weight._version:
            fitted: tuple[GoboCodes, Tensor] = self._kept["fitted"]
            return fitted
        codes = self._encode(weight)
        fitted = codes, self.decode(*codes)
        if not weight.is_inference():  # which has no version to tell a change by
            self._kept.update(of=weakref.ref(weight), version=weight._version, fitted=fitted)
        return fitted

    def _encode(self, weight: Tensor) -> GoboCodes:
        dense = np.ascontiguousarray(weight.detach().cpu().numpy())
        if not np.isfinite(dense).all():
            raise TrainingError("a weight is not finite, so it has no place in a table; the training has diverged")
        ordered = np.sort(dense, axis=None)
        inner = self._without_outliers(ordered)
        scale, table = round_table(fit_codebook(inner, self.bits, self.objective).centroids)
        values = table.astype(np.float32) * scale
        codes = np.zeros(dense.shape, np.uint8)
        for border in _below((values[:-1].astype(np.float64) + values[1:]) / 2):
            codes += dense > border
        positions = np.flatnonzero((dense < inner[0]) | (dense > inner[-1]))
        parts = codes, np.array([scale]), table, positions, dense.reshape(-1)[positions]
        return GoboCodes(*(torch.from_numpy(part).to(weight.device) for part in parts))

    def _without_outliers(self, ordered: Floats) -> Floats:
        """The middle part of the ascending weights."""
        radius = outlier_radius(ordered, self.outliers, self.threshold)
        mean = float(ordered.mean(dtype=np.float64))
        low, high = -_below(-(mean - radius)), _below(mean + radius)
        inner = ordered[np.searchsorted(ordered, low) : np.searchsorted(ordered, high, side="right")]
        if not inner.size:
            raise RecipeError(
                f"every weight of a matrix is an outlier (their standard deviation is {_deviation(ordered):.4g}): the "
                f"log-density depends on the unit of the weights. Set outliers=z and outlier_threshold=3.5"
            )
        return inner


def check_outlier_rule(rule: object, threshold: object, where: str = "outliers") -> None:
    """RecipeError for a rule that does not exist, or a threshold that is none of its own."""
    if rule not in OUTLIER_RULES:
        raise RecipeError(f"{where} is {rule!r}; allowed: {', '.join(OUTLIER_RULES)}")
    is_number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
    if not is_number or not math.isfinite(float(threshold)) or (rule == "z" and float(threshold) <= 0):  # type: ignore[arg-type]
        allowed = "a number above 0, such as 3.5" if rule == "z" else "a number, -4 in the paper"
        raise RecipeError(f"the threshold is {threshold!r} where {where} is {rule!r}; allowed: {allowed}")


def outlier_radius(weights: Floats, rule: str, threshold: float) -> float:
    """How far from the mean of ``weights`` an outlier begins; infinite where there are none, negative where all are.

    Equal weights have no distribution that one of them could lie outside of.
    """
    deviation = _deviation(weights)
    if rule == "none" or deviation == 0:
        return math.inf
    if rule == "z":
        return threshold * deviation
    # −z²/2 − ln(σ·√(2π)) < threshold
    square = -2 * (threshold + math.log(deviation * math.sqrt(2 * math.pi)))
    return deviation * math.sqrt(square) if square >= 0 else -1.0


def fit_codebook(ordered: Floats, bits: int, objective: str = "l1") -> CodebookFit:
    """2^bits centroids of ascending numbers, float32 [n ≥ 1]: the module's text, and ``objective`` as of
    :class:`GoboQuantizer`. The "history" of "l2" is Σ(w − c)².

    Where there are no more distinct numbers than centroids, these are the numbers. An empty bin keeps its centroid.
    """
    size = 2**bits
    distinct = _few_distinct(ordered, size)
    if distinct is not None:
        centroids = np.concatenate([distinct, np.full(size - len(distinct), distinct[-1])])
        return CodebookFit(centroids, (0.0,), 0)
    sums = _prefix_sums(ordered)
    squares = _prefix_sums(ordered, 2) if objective == "l2" else sums
    edges = np.arange(size + 1) * len(ordered) // size
    centroids = _means(sums, edges, np.zeros(size))
    history: list[float] = []
    seen: set[bytes] = set()
    best = centroids
    while True:
        edges = _assign(ordered, centroids)
        if objective == "l2":
            history.append(_squared_error(sums, squares, edges, centroids))
            best = centroids
            if edges.tobytes() in seen:  # also where rounding errors would go around in a circle
                break
            seen.add(edges.tobytes())
        else:
            history.append(_absolute_error(ordered, sums, edges, centroids))
            if len(history) > 1 and history[-1] >= history[-2]:
                return CodebookFit(best, tuple(history), len(history) - 2)
            best = centroids
        centroids = _means(sums, edges, centroids)
    return CodebookFit(best, tuple(history), len(history) - 1)


def round_table(centroids: Doubles) -> tuple[np.float32, NDArray[np.int8]]:
    """centroids [2^bits] → scale and the integers that times it stand for them: :class:`GoboQuantizer`."""
    scale = np.abs(centroids).max().astype(np.float32) / np.float32(LARGEST_ENTRY)
    if scale < np.finfo(np.float32).tiny:
        scale = np.float32(1)
    table = np.rint(centroids / np.float64(scale)).clip(-LARGEST_ENTRY, LARGEST_ENTRY)
    return scale, table.astype(np.int8)


class _StraightThrough(torch.autograd.Function):
    """Forward q(w), backward the identity."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, quantizer: GoboQuantizer) -> Tensor:
        return quantizer._fitted(weight)[1].detach()  # another tensor of the same memory: this one gets a history

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _few_distinct(ordered: Floats, most: int) -> Doubles | None:
    """The distinct ones of ascending numbers, or None where there are more than ``most``."""
    found: list[float] = []
    at = 0
    while at < len(ordered):
        if len(found) == most:
            return None
        found.append(float(ordered[at]))
        at = int(np.searchsorted(ordered, ordered[at], side="right"))
    return np.array(found)


def _deviation(weights: Floats) -> float:
    """Of the population, exactly 0 where all are equal."""
    return 0.0 if weights.min() == weights.max() else float(weights.std(dtype=np.float64))


def _prefix_sums(ordered: Floats, power: int = 1) -> Doubles:
    """Sums of the first 0 … n numbers (or their squares)."""
    sums = np.zeros(len(ordered) + 1)
    np.cumsum(ordered.astype(np.float64) ** power, out=sums[1:])
    return sums


def _means(sums: Doubles, edges: NDArray[np.int64], empty: Doubles) -> Doubles:
    """Of each bin edges[j] … edges[j+1]; ``empty`` of bins without members."""
    counts = np.diff(edges)
    return np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), empty)


def _assign(ordered: Floats, centroids: Doubles) -> NDArray[np.int64]:
    """The edges of the bins of nearest centroids; in the middle of two it is the lower."""
    inner = np.searchsorted(ordered, _below((centroids[:-1] + centroids[1:]) / 2), side="right")
    return np.concatenate([[0], inner, [len(ordered)]])


def _absolute_error(ordered: Floats, sums: Doubles, edges: NDArray[np.int64], centroids: Doubles) -> float:
    """Σ|w − c|."""
    start, end = edges[:-1], edges[1:]
    middle = np.searchsorted(ordered, _below(centroids), side="right").clip(start, end)
    return float((centroids * (2 * middle - start - end) + sums[start] - 2 * sums[middle] + sums[end]).sum())


def _squared_error(sums: Doubles, squares: Doubles, edges: NDArray[np.int64], centroids: Doubles) -> float:
    """Σ(w − c)²."""
    return float((np.diff(squares[edges]) + centroids * (centroids * np.diff(edges) - 2 * np.diff(sums[edges]))).sum())


def _below(x: Any) -> Any:
    """The largest fp32 number that is at most x. Of fp32 numbers w, w ≤ x is w ≤ this, without a copy of them in
    fp64."""
    nearest = np.asarray(x, np.float64).astype(np.float32)
    return np.where(nearest > x, np.nextafter(nearest, np.float32(-np.inf)), nearest)
