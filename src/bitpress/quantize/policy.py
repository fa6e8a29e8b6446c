"""Which quantizer each weight matrix, the word embedding and the activations get.

A policy is data: a section of a recipe, carried out by ``apply_policy``. Values are checked when it is made; an error
names the key, the value and what is allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from bitpress.errors import RecipeError
from bitpress.quantize.ternary import GROUPS, METHODS, TernaryQuantizer
from bitpress.quantize.uniform import RANGES, ActivationQuantizer

WEIGHT_SCHEMES = ("fp32", "ternary")
ACTIVATION_SCHEMES = ("fp32", "uniform")


@dataclass(frozen=True)
class WeightPolicy:
    """How the weights of the linears are stored.

    scheme: "fp32" or "ternary"; method, group, clip: of :class:`TernaryQuantizer`, unused with fp32.

    Raises:
        RecipeError: a value is not allowed.
    """

    SECTION: ClassVar[str] = "weights"

    scheme: str = "ternary"
    method: str = "twn"
    group: str = "matrix"
    clip: float | None = None

    def __post_init__(self) -> None:
        _check_choice(f"{self.SECTION}.scheme", self.scheme, WEIGHT_SCHEMES)
        _check_choice(f"{self.SECTION}.method", self.method, METHODS)
        _check_choice(f"{self.SECTION}.group", self.group, GROUPS)
        _check_clip(f"{self.SECTION}.clip", self.clip)

    @property
    def bits(self) -> int:
        """Bits a weight, without scales: 32 or 2."""
        return 32 if self.scheme == "fp32" else 2

    def quantizer(self) -> TernaryQuantizer | None:
        """The quantizer this asks for; None is fp32."""
        if self.scheme == "fp32":
            return None
        return TernaryQuantizer(group=self.group, method=self.method, clip=self.clip)


@dataclass(frozen=True)
class EmbeddingPolicy(WeightPolicy):
    """How the word embedding is stored: as a weight, but with one scale a row unless told otherwise."""

    SECTION: ClassVar[str] = "word_embedding"

    group: str = "row"


@dataclass(frozen=True)
class ActivationPolicy:
    """How the inputs of matrix products are represented.

    scheme: "fp32" or "uniform"; bits, symmetric, range, clip: of :class:`ActivationQuantizer`, unused with fp32.

    Raises:
        RecipeError: a value is not allowed.
    """

    scheme: str = "uniform"
    bits: int = 8
    symmetric: bool = False
    range: str = "token"
    clip: float | None = None

    def __post_init__(self) -> None:
        _check_choice("activations.scheme", self.scheme, ACTIVATION_SCHEMES)
        _check_choice("activations.bits", self.bits, (8,))
        _check_choice("activations.symmetric", self.symmetric, (False, True))
        _check_choice("activations.range", self.range, RANGES)
        _check_clip("activations.clip", self.clip)

    def quantizer(self) -> ActivationQuantizer | None:
        """A new quantizer as this asks for; None is fp32."""
        if self.scheme == "fp32":
            return None
        return ActivationQuantizer(bits=self.bits, symmetric=self.symmetric, range=self.range, clip=self.clip)


@dataclass(frozen=True)
class Policy:
    """Weights of the linears (pooler included, classifier never), the word embedding, and the activations.

    The default is TernaryBERT's: one α a matrix, one a row of the word embedding, asymmetric 8-bit activations.
    """

    weights: WeightPolicy = field(default_factory=WeightPolicy)
    word_embedding: EmbeddingPolicy = field(default_factory=EmbeddingPolicy)
    activations: ActivationPolicy = field(default_factory=ActivationPolicy)


def _check_choice(key: str, value: object, allowed: tuple[object, ...]) -> None:
    # The type counts: 8.0 and True are not 8, and 1 is not True.
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        raise RecipeError(f"{key} is {value!r}; allowed: {', '.join(map(str, allowed))}")


def _check_clip(key: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise RecipeError(f"{key} is {value!r}; allowed: a number above 0, or null for no clipping")
