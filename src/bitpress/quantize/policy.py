"""Which quantizer each weight matrix, the word embedding and the activations get.

A policy is data: a section of a recipe, carried out by ``apply_policy``. Values are checked when it is made; an error
names the key, the value and what is allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from bitpress.errors import RecipeError
from bitpress.quantize.binary import BinaryQuantizer, SignQuantizer
from bitpress.quantize.elastic import ELASTIC_BITS, SCALES, THRESHOLDS, ElasticQuantizer
from bitpress.quantize.learned_range import LearnedRangeQuantizer
from bitpress.quantize.ternary import GROUPS, METHODS, TernaryQuantizer
from bitpress.quantize.uniform import ACTIVATION_BITS, RANGES, ActivationQuantizer
from bitpress.quantize.uniform_weights import BITS, UNIFORM_GROUPS, UniformWeightQuantizer, check_group_size

WEIGHT_SCHEMES = ("fp32", "ternary", "uniform", "binary")
ACTIVATION_SCHEMES = ("fp32", "uniform", "binary", "elastic")
CENTRES = ("row", "matrix", "none")
ATTENTIONS = ("bool", "all")


@dataclass(frozen=True)
class WeightPolicy:
    """How the weights of the linears are stored.

    scheme: "fp32", "ternary", "uniform" or "binary"; group, clip: what shares a scale, and a bound on the weights
    before they are quantized; unused with fp32. Binary weights have no clip.
    method: of :class:`TernaryQuantizer`, unused with others.
    bits, symmetric, group_size, pair_bound: of :class:`UniformWeightQuantizer`, unused with others; group_size only
    with group "row_block" and "input", pair_bound only with 8 bits and symmetric.
    centre, gradient_range, scale_bits: of :class:`BinaryQuantizer`, unused with others.

    Raises:
        RecipeError: a value is not allowed.
    """

    SECTION: ClassVar[str] = "weights"

    scheme: str = "ternary"
    method: str = "twn"
    group: str = "matrix"
    clip: float | None = None
    bits: int = 8
    symmetric: bool = True
    group_size: int | None = None
    pair_bound: bool = True
    centre: str = "row"
    gradient_range: float | None = 1.0
    scale_bits: int = 32

    def __post_init__(self) -> None:
        here = f"{self.SECTION}."
        _check_choice(here + "scheme", self.scheme, WEIGHT_SCHEMES)
        _check_choice(here + "method", self.method, METHODS)
        _check_choice(here + "group", self.group, UNIFORM_GROUPS if self.scheme == "uniform" else GROUPS)
        _check_clip(here + "clip", self.clip)
        _check_choice(here + "bits", self.bits, BITS)
        _check_choice(here + "symmetric", self.symmetric, (False, True))
        _check_choice(here + "pair_bound", self.pair_bound, (False, True))
        check_group_size(self.group, self.group_size, here)
        _check_choice(here + "centre", self.centre, CENTRES)
        _check_choice(here + "scale_bits", self.scale_bits, (32, 16))
        _check_bound(here + "gradient_range", self.gradient_range, "the identity")
        if self.scheme == "binary":
            _check_choice(here + "clip", self.clip, (None,))

    @property
    def stored_bits(self) -> int:
        """Bits a weight, without scales."""
        return {"fp32": 32, "ternary": 2, "uniform": self.bits, "binary": 1}[self.scheme]

    @property
    def shares_scale(self) -> str:
        """What shares a scale, in words."""
        words = {"row_block": f"block of {self.group_size} rows", "input": f"group of {self.group_size} inputs"}
        return words.get(self.group, self.group)

    def quantizer(self) -> TernaryQuantizer | UniformWeightQuantizer | BinaryQuantizer | None:
        """The quantizer this asks for; None is fp32."""
        if self.scheme == "fp32":
            return None
        if self.scheme == "ternary":
            return TernaryQuantizer(group=self.group, method=self.method, clip=self.clip)
        if self.scheme == "binary":
            return BinaryQuantizer(self.group, self.centre, self.gradient_range, self.scale_bits)
        return UniformWeightQuantizer(
            bits=self.bits,
            symmetric=self.symmetric,
            group=self.group,
            group_size=self.group_size if self.group in ("row_block", "input") else None,
            pair_bound=self.pair_bound and self.bits == 8 and self.symmetric,
            clip=self.clip,
        )


@dataclass(frozen=True)
class EmbeddingPolicy(WeightPolicy):
    """How the word embedding is stored: as a weight, but with one scale a row unless told otherwise, and without
    ``pair_bound``, since its rows are looked up and never multiplied."""

    SECTION: ClassVar[str] = "word_embedding"

    group: str = "row"
    pair_bound: bool = False


@dataclass(frozen=True)
class ActivationPolicy:
    """How the inputs of matrix products are represented.

    scheme: "fp32", "uniform", "binary" (:class:`SignQuantizer`) or "elastic" (:class:`ElasticQuantizer`: inputs of
    linears each with a scale and threshold of their own, what is never negative not signed).
    bits: 8 or 4 (uniform); 1, 2 or 4 (elastic); unused with others.
    symmetric, range, clip: of :class:`ActivationQuantizer`, unused with others. range "learned":
    :class:`LearnedRangeQuantizer`, not symmetric and without a clip, what is never negative not signed.
    attention: with binary activations, "bool" (Bi-Attention) or "all" (the baseline, which attends to every key);
    with others attention is softmax.
    scale, threshold: of :class:`ElasticQuantizer`, unused with others.

    Raises:
        RecipeError: a value is not allowed.
    """

    scheme: str = "uniform"
    bits: int = 8
    symmetric: bool = False
    range: str = "token"
    clip: float | None = None
    attention: str = "bool"
    scale: str = "learned"
    threshold: str = "channel"

    def __post_init__(self) -> None:
        _check_choice("activations.scheme", self.scheme, ACTIVATION_SCHEMES)
        _check_choice("activations.bits", self.bits, ELASTIC_BITS if self.scheme == "elastic" else ACTIVATION_BITS)
        _check_choice("activations.attention", self.attention, ATTENTIONS)
        _check_choice("activations.scale", self.scale, SCALES)
        _check_choice("activations.threshold", self.threshold, THRESHOLDS)
        _check_choice("activations.symmetric", self.symmetric, (False, True))
        _check_choice("activations.range", self.range, (*RANGES, "learned"))
        _check_clip("activations.clip", self.clip)
        if self.range == "learned":  # the range is what it learns: nothing is left for these to say
            _check_choice("activations.symmetric", self.symmetric, (False,))
            _check_choice("activations.clip", self.clip, (None,))

    @property
    def stored_bits(self) -> int:
        """Bits a number."""
        return {"fp32": 32, "uniform": self.bits, "binary": 1, "elastic": self.bits}[self.scheme]

    @property
    def starts_from_data(self) -> bool:
        """Whether scales or ranges come from batches, so that weights alone do not make a finished model."""
        return self.scheme == "elastic" or (self.scheme == "uniform" and self.has_stored_ranges)

    @property
    def has_stored_ranges(self) -> bool:
        """Of scheme "uniform": every point has one range for everything, which an artifact stores."""
        return self.range in ("static", "learned")

    def quantizer(
        self, kind: str, signed: bool = True
    ) -> ActivationQuantizer | LearnedRangeQuantizer | SignQuantizer | ElasticQuantizer | None:
        """A new quantizer for an activation point of that kind, ``signed`` where numbers may be negative; None is
        fp32, or what needs none there."""
        if self.scheme == "fp32":
            return None
        if self.scheme == "binary":  # attention weights are bits already
            return None if kind == "probabilities" else SignQuantizer()
        if self.scheme == "elastic":  # linears have quantizers of their own
            return None if kind == "rows" else self._elastic(signed, None, "none")
        if self.range == "learned":
            return LearnedRangeQuantizer(self.bits, signed)
        return ActivationQuantizer(bits=self.bits, symmetric=self.symmetric, range=self.range, clip=self.clip)

    def input_quantizer(self, inputs: int, signed: bool) -> ElasticQuantizer | None:
        """A new quantizer for the inputs of one linear, where every linear has its own; None where its activation
        point has one for all."""
        return self._elastic(signed, inputs, self.threshold) if self.scheme == "elastic" else None

    def _elastic(self, signed: bool, channels: int | None, threshold: str) -> ElasticQuantizer:
        return ElasticQuantizer(self.bits, signed, channels, self.scale, threshold)


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
    _check_bound(key, value, "no clipping")


def _check_bound(key: str, value: object, without: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise RecipeError(f"{key} is {value!r}; allowed: a number above 0, or null for {without}")
