"""How sensitivity is measured, and what a measurement found."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bitpress.errors import RecipeError

# With fewer an eigenvalue has nothing to be compared with, so nothing says whether it has converged.
MIN_ITERATIONS = 2


@dataclass(frozen=True)
class SensitivitySettings:
    """How sensitivity is measured.

    samples       how many random samples of the training set, each with an eigenvalue of its own a block
    share         size of a sample, a share of the training set; samples are disjoint until the set is used up
    texts, tokens a sample has at most so many texts, and tokens
    max_products  Hessian-vector products a block at most, over all samples; one costs about two backward passes
    probes        of these, products with random vectors for the trace, spread evenly over the samples
    tolerance     an eigenvalue has converged when it changes by less than this share of itself
    seed          of samples and random vectors

    40 products are 7 for the trace, up to 8 iterations from a random vector on the first sample, and about 3 on each
    other, which start from the vector that the one before ended with. On a 6 × 384 encoder and SST-2 the third value
    was then within 1 to 3 % of the limit, while the eigenvalues of samples of 2,048 tokens differ by 20 %: hence the
    tolerance. All six layers took 8 minutes on one core.

    Raises:
        RecipeError: a value is out of range.
    """

    samples: int = 10
    share: float = 0.1
    texts: int = 256
    tokens: int = 2048
    max_products: int = 40
    probes: int = 7
    tolerance: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("samples", "texts", "tokens", "max_products", "probes", "seed"):
            value, least = getattr(self, key), 0 if key in ("seed", "probes") else 1
            if type(value) is not int or value < least:
                raise RecipeError(f"{key} is {value!r}; allowed: an integer of at least {least}")
        for key, most in (("share", 1.0), ("tolerance", 0.5)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
                raise RecipeError(f"{key} is {value!r}; allowed: above 0 and at most {most:g}")
        least = self.samples * MIN_ITERATIONS + self.probes
        if self.max_products < least:
            raise RecipeError(
                f"max_products is {self.max_products}; {self.samples} samples of at least {MIN_ITERATIONS} iterations "
                f"and {self.probes} probes need {least}: give more, or fewer samples or probes"
            )

    def probes_of(self, sample: int) -> int:
        """Probes of one sample, counted from 0."""
        return (sample + 1) * self.probes // self.samples - sample * self.probes // self.samples


@dataclass(frozen=True)
class SampleMeasurement:
    """One block on one sample.

    eigenvalue  of the largest magnitude, with its sign
    change      the last relative change of the eigenvalue; NaN does not occur, a first value has changed by 1
    converged   see :func:`bitpress.sensitivity.hessian.power_iteration`
    iterations  of the power method
    traces      vᵀHv of each Rademacher vector v: their mean estimates the trace
    products    Hessian-vector products, all of them
    """

    eigenvalue: float
    change: float
    converged: bool
    iterations: int
    traces: tuple[float, ...]
    products: int


@dataclass(frozen=True)
class BlockSensitivity:
    """One block: what was measured, a sample after the other, and what follows from it.

    ``size`` is the number of its parameters.
    """

    name: str
    parameters: tuple[str, ...]
    size: int
    samples: tuple[SampleMeasurement, ...]

    @property
    def eigenvalues(self) -> tuple[float, ...]:
        """One a sample."""
        return tuple(sample.eigenvalue for sample in self.samples)

    @property
    def omega(self) -> float:
        """Ω = |mean λ| + population standard deviation of λ (Q-BERT, §3): high where bits are needed."""
        return omega(self.eigenvalues)

    @property
    def omega_error(self) -> float | None:
        """Standard error of Ω by the jackknife over samples; None of fewer than three."""
        return omega_error(self.eigenvalues)

    @property
    def trace(self) -> float:
        """Mean of the estimates of the trace by those samples that have one; 0 where no probe was asked for."""
        means = self._trace_means()
        return float(np.mean(means)) if means else 0.0

    @property
    def trace_error(self) -> float | None:
        """Standard error of ``trace``: over samples, of a single one over its probes; None of a single number."""
        values = self._trace_means()
        if len(values) == 1:
            values = list(self.samples[0].traces)
        return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None

    @property
    def negative(self) -> int:
        """Samples whose eigenvalue is below 0: the model is at no minimum there."""
        return sum(value < 0 for value in self.eigenvalues)

    @property
    def converged(self) -> int:
        """Samples whose eigenvalue converged."""
        return sum(sample.converged for sample in self.samples)

    @property
    def products(self) -> int:
        """Hessian-vector products over all samples."""
        return sum(sample.products for sample in self.samples)

    def _trace_means(self) -> list[float]:
        return [float(np.mean(sample.traces)) for sample in self.samples if sample.traces]


@dataclass(frozen=True)
class SensitivityReport:
    """A whole measurement.

    weights_sha256, data_sha256  fingerprints of the model's tensors and of the tokenized training set
    texts, tokens                of all samples together
    seconds                      that measuring took, interruptions not counted
    """

    settings: SensitivitySettings
    weights_sha256: str
    data_sha256: str
    texts: int
    tokens: int
    blocks: tuple[BlockSensitivity, ...]
    seconds: float

    def ranking(self) -> tuple[BlockSensitivity, ...]:
        """The blocks, highest Ω first; equal ones in the model's order."""
        return tuple(sorted(self.blocks, key=lambda block: -block.omega))


def omega(eigenvalues: tuple[float, ...]) -> float:
    """|mean| + population standard deviation. The paper does not say which standard deviation; this is the choice."""
    return float(abs(np.mean(eigenvalues)) + np.std(eigenvalues))


def omega_error(eigenvalues: tuple[float, ...]) -> float | None:
    """Jackknife: Ω without each sample in turn, √((n − 1)/n · Σ (Ω₍ᵢ₎ − mean)²); None of fewer than three, of which two
    remaining have no spread worth the name."""
    n = len(eigenvalues)
    if n < 3:
        return None
    without = np.array([omega(eigenvalues[:i] + eigenvalues[i + 1 :]) for i in range(n)])
    return float(math.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))
