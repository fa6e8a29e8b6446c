"""Which quantizer each weight matrix, the embeddings and the activations get.

A policy is data: a section of a recipe, carried out by ``apply_policy``. Values are checked when it is made; an error
names the key, the value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeAlias

from bitpress.errors import RecipeError
from bitpress.quantize.binary import BinaryQuantizer, CentredSignQuantizer, SignQuantizer
from bitpress.quantize.elastic import ELASTIC_BITS, SCALES, THRESHOLDS, ElasticQuantizer
from bitpress.quantize.gobo import BITS as CODEBOOK_BITS
from bitpress.quantize.gobo import OBJECTIVES, GoboQuantizer, check_outlier_rule
from bitpress.quantize.groups import UNIFORM_GROUPS, check_group_size, row_groups
from bitpress.quantize.learned_range import LearnedRangeQuantizer
from bitpress.quantize.loss_aware import LOSS_AWARE_METHODS, LossAwareTernaryQuantizer
from bitpress.quantize.ternary import GROUPS, METHODS, TernaryQuantizer
from bitpress.quantize.uniform import ACTIVATION_BITS, RANGES, ActivationQuantizer
from bitpress.quantize.uniform_weights import BITS, BOUNDS, UniformWeightQuantizer, check_percentile

WEIGHT_SCHEMES = ("fp32", "ternary", "uniform", "codebook", "binary")
ACTIVATION_SCHEMES = ("fp32", "uniform", "binary", "elastic")
CENTRES = ("row", "matrix", "none")
ATTENTIONS = ("bool", "all")
ATTENTION_CENTRES = ("none", "running")
GROUP_FITS = ("exact", "below")
WORD_EMBEDDING = "embeddings.word"
POSITION_EMBEDDING = "embeddings.position"
TERNARY_METHODS = (*METHODS, *LOSS_AWARE_METHODS)
WeightQuantizer: TypeAlias = (
    TernaryQuantizer | LossAwareTernaryQuantizer | UniformWeightQuantizer | GoboQuantizer | BinaryQuantizer
)


@dataclass(frozen=True)
class WeightPolicy:
    """How the weights of the linears are stored.

    scheme: "fp32", "ternary", "uniform", "codebook" or "binary"; group, clip: what shares a scale, and a bound on the
    weights before they are quantized; unused with fp32. Binary and codebook weights have no clip, and a codebook is of
    a matrix.
    method: of :class:`TernaryQuantizer` or :class:`LossAwareTernaryQuantizer`, unused with others.
    bits: of :class:`UniformWeightQuantizer` and :class:`GoboQuantizer`, unused with others.
    symmetric, group_size, pair_bound, bounds, percentile: of :class:`UniformWeightQuantizer`, unused with others;
    group_size only with group "row_block" and "input", pair_bound only with 8 bits, symmetric and bounds "minmax".
    groups, group_fit: with group "row_block", how many blocks a matrix has, instead of group_size: :func:`row_groups`.
    outliers, outlier_threshold, objective: of :class:`GoboQuantizer`, unused with others.
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
    groups: int | None = None
    group_fit: str = "exact"
    bounds: str = "minmax"
    percentile: float | None = None
    pair_bound: bool = True
    outliers: str = "log_density"
    outlier_threshold: float = -4.0
    objective: str = "l1"
    centre: str = "row"
    gradient_range: float | None = 1.0
    scale_bits: int = 32

    def __post_init__(self) -> None:
        here = f"{self.SECTION}."
        _check_choice(here + "scheme", self.scheme, WEIGHT_SCHEMES)
        _check_choice(here + "method", self.method, TERNARY_METHODS)
        _check_choice(here + "group", self.group, UNIFORM_GROUPS if self.scheme == "uniform" else GROUPS)
        _check_clip(here + "clip", self.clip)
        _check_choice(here + "bits", self.bits, CODEBOOK_BITS if self.scheme == "codebook" else BITS)
        _check_choice(here + "symmetric", self.symmetric, (False, True))
        _check_choice(here + "pair_bound", self.pair_bound, (False, True))
        _check_choice(here + "bounds", self.bounds, BOUNDS)
        check_percentile(self.percentile, here)
        _check_choice(here + "group_fit", self.group_fit, GROUP_FITS)
        if self.groups is None:
            check_group_size(self.group, self.group_size, here)
        elif self.group == "row_block":
            self._check_groups(here)
        _check_choice(here + "centre", self.centre, CENTRES)
        _check_choice(here + "scale_bits", self.scale_bits, (32, 16))
        _check_bound(here + "gradient_range", self.gradient_range, "the identity")
        check_outlier_rule(self.outliers, self.outlier_threshold, here + "outliers")
        _check_choice(here + "objective", self.objective, OBJECTIVES)
        if self.scheme in ("binary", "codebook"):
            _check_choice(here + "clip", self.clip, (None,))
        if self.scheme == "codebook":
            _check_choice(here + "group", self.group, ("matrix",))

    def _check_groups(self, here: str) -> None:
        if type(self.groups) is not int or self.groups < 1:
            raise RecipeError(f"{here}groups is {self.groups!r}; allowed: an integer of at least 1, or null")
        if self.group_size is not None:
            raise RecipeError(
                f"{here}groups is {self.groups} and group_size is {self.group_size}; one says the other: set one of "
                "them to null"
            )

    def of_rows(self, rows: int) -> WeightPolicy:
        """The same for a matrix of so many rows, with ``group_size`` instead of ``groups``.

        Raises:
            RecipeError: ``groups`` does not divide the rows, and group_fit is "exact".
        """
        if self.scheme != "uniform" or self.group != "row_block" or self.groups is None:
            return self
        groups = row_groups(rows, self.groups, self.group_fit)
        return replace(self, group=groups.kind, group_size=groups.size, groups=None)

    @property
    def stored_bits(self) -> int:
        """Bits a weight, without scales."""
        return {"fp32": 32, "ternary": 2, "uniform": self.bits, "codebook": self.bits, "binary": 1}[self.scheme]

    @property
    def shares_scale(self) -> str:
        """What shares a scale, in words."""
        blocks = f"block of {self.group_size} rows" if self.groups is None else f"one of {self.groups} blocks of rows"
        words = {"row_block": blocks, "input": f"group of {self.group_size} inputs"}
        return words.get(self.group, self.group)

    @property
    def is_loss_aware(self) -> bool:
        """Whether its quantizer reads the optimizer's state of the weight."""
        return self.scheme == "ternary" and self.method in LOSS_AWARE_METHODS

    def quantizer(self, rows: int) -> WeightQuantizer | None:
        """A new quantizer for a matrix of so many rows; None is fp32.

        Raises:
            RecipeError: see :meth:`of_rows`.
        """
        wanted = self.of_rows(rows)
        if wanted is not self:
            return wanted.quantizer(rows)
        if self.scheme == "fp32":
            return None
        if self.is_loss_aware:
            return LossAwareTernaryQuantizer(rows, self.group, self.method, self.clip)
        if self.scheme == "ternary":
            return TernaryQuantizer(group=self.group, method=self.method, clip=self.clip)
        if self.scheme == "binary":
            return BinaryQuantizer(self.group, self.centre, self.gradient_range, self.scale_bits)
        if self.scheme == "codebook":
            return GoboQuantizer(self.bits, self.outliers, self.outlier_threshold, self.objective)
        return UniformWeightQuantizer(
            bits=self.bits,
            symmetric=self.symmetric,
            group=self.group,
            group_size=self.group_size if self.group in ("row_block", "input") else None,
            pair_bound=self.pair_bound and self.bits == 8 and self.symmetric and self.bounds == "minmax",
            clip=self.clip,
            bounds=self.bounds,
            percentile=self.percentile,
        )


@dataclass(frozen=True)
class EmbeddingPolicy(WeightPolicy):
    """How the word embedding is stored: as a weight, but with one scale a row unless told otherwise, and without
    ``pair_bound``, since its rows are looked up and never multiplied."""

    SECTION: ClassVar[str] = "word_embedding"

    group: str = "row"
    pair_bound: bool = False


@dataclass(frozen=True)
class PositionPolicy(EmbeddingPolicy):
    """How the table of positions is stored: in fp32 as published but by Q-BERT, or as uniform codes."""

    SECTION: ClassVar[str] = "position_embedding"

    scheme: str = "fp32"

    def __post_init__(self) -> None:
        _check_choice(f"{self.SECTION}.scheme", self.scheme, ("fp32", "uniform"))
        super().__post_init__()


@dataclass(frozen=True)
class ActivationPolicy:
    """How the inputs of matrix products are represented.

    scheme: "fp32", "uniform", "binary" (:class:`SignQuantizer`) or "elastic" (:class:`ElasticQuantizer`: inputs of
    linears each with a scale and threshold of their own, what is never negative not signed).
    bits: 8 or 4 (uniform); 1, 2 or 4 (elastic); unused with others.
    symmetric, range, clip: of :class:`ActivationQuantizer`, unused with others. range "learned":
    :class:`LearnedRangeQuantizer`, not symmetric and without a clip, what is never negative not signed.
    momentum: with range "static", of its running average, unused with others.
    attention: with binary activations, "bool" (Bi-Attention) or "all" (the baseline, which attends to every key);
    with others attention is softmax.
    attention_centre: with binary activations, what queries and keys are taken off before their sign: "none" (BiBERT) or
    "running", the mean of every channel (:class:`CentredSignQuantizer`); unused with others.
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
    attention_centre: str = "none"
    momentum: float = 0.99
    scale: str = "learned"
    threshold: str = "channel"

    def __post_init__(self) -> None:
        _check_choice("activations.scheme", self.scheme, ACTIVATION_SCHEMES)
        _check_choice("activations.bits", self.bits, ELASTIC_BITS if self.scheme == "elastic" else ACTIVATION_BITS)
        _check_choice("activations.attention", self.attention, ATTENTIONS)
        _check_choice("activations.attention_centre", self.attention_centre, ATTENTION_CENTRES)
        _check_choice("activations.scale", self.scale, SCALES)
        _check_choice("activations.threshold", self.threshold, THRESHOLDS)
        _check_choice("activations.symmetric", self.symmetric, (False, True))
        _check_choice("activations.range", self.range, (*RANGES, "learned"))
        _check_clip("activations.clip", self.clip)
        _check_share("activations.momentum", self.momentum)
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
        self, kind: str, signed: bool = True, channels: int | None = None
    ) -> ActivationQuantizer | LearnedRangeQuantizer | SignQuantizer | ElasticQuantizer | None:
        """A new quantizer for an activation point of that kind, ``signed`` where numbers may be negative, of
        ``channels`` numbers a token where it is of queries or keys; None is fp32, or what needs none there."""
        if self.scheme == "fp32":
            return None
        if self.scheme == "binary":  # attention weights are bits already
            if kind == "head_rows" and channels is not None and self.attention_centre == "running":
                return CentredSignQuantizer(channels)
            return None if kind == "probabilities" else SignQuantizer()
        if self.scheme == "elastic":  # linears have quantizers of their own
            return None if kind == "rows" else self._elastic(signed, None, "none")
        if self.range == "learned":
            return LearnedRangeQuantizer(self.bits, signed)
        return ActivationQuantizer(
            bits=self.bits, symmetric=self.symmetric, range=self.range, clip=self.clip, momentum=self.momentum
        )

    def input_quantizer(self, inputs: int, signed: bool) -> ElasticQuantizer | None:
        """A new quantizer for the inputs of one linear, where every linear has its own; None where its activation
        point has one for all."""
        return self._elastic(signed, inputs, self.threshold) if self.scheme == "elastic" else None

    def _elastic(self, signed: bool, channels: int | None, threshold: str) -> ElasticQuantizer:
        return ElasticQuantizer(self.bits, signed, channels, self.scale, threshold)


@dataclass(frozen=True)
class Policy:
    """Weights of the linears (pooler included, classifier never), words' and positions' embeddings, and activations.

    ``blocks``: where weights differ from ``weights`` (or an embedding from its own section): the first
    parts of parameter names ("layers.3", "layers.3.ffn", "layers.3.ffn.output", "pooler") → keys of
    :class:`WeightPolicy`, or a number, which is ``bits``. Where several apply, the longest name wins, key by key.

    The default is TernaryBERT's: one α a matrix, one a row of the word embedding, positions in fp32, asymmetric 8-bit
    activations.

    Raises:
        RecipeError: a block has an unknown key or a value that is not allowed.
    """

    weights: WeightPolicy = field(default_factory=WeightPolicy)
    word_embedding: EmbeddingPolicy = field(default_factory=EmbeddingPolicy)
    activations: ActivationPolicy = field(default_factory=ActivationPolicy)
    blocks: Mapping[str, Any] = field(default_factory=dict)
    position_embedding: PositionPolicy = field(default_factory=PositionPolicy)

    def __post_init__(self) -> None:
        known = [each.name for each in dataclasses.fields(WeightPolicy)]
        for block, wanted in self.blocks.items():
            for key in _keys_of(wanted, block):
                if key not in known:
                    raise RecipeError(f"blocks.{block} has the unknown key {key!r}; allowed: {', '.join(known)}")
            try:
                for name in _tables_within(block) or [block]:
                    self.weights_of(name)
            except RecipeError as error:
                raise RecipeError(f"blocks.{block}: {error}") from error

    def weights_of(self, name: str) -> WeightPolicy:
        """How the weights of a linear or an embedding are stored, by its name in the encoder."""
        keys: dict[str, Any] = {}
        for block in sorted(self.blocks, key=len):
            if is_within(name, block):
                keys |= _keys_of(self.blocks[block], block)
        tables = {WORD_EMBEDDING: self.word_embedding, POSITION_EMBEDDING: self.position_embedding}
        return replace(tables.get(name, self.weights), **keys)

    def with_bits(self, bits: Mapping[str, int]) -> Policy:
        """The same with so many bits for each of these blocks, but where ``blocks`` says otherwise of it, or of a part
        of it."""
        own = {block: _keys_of(wanted, block) for block, wanted in self.blocks.items()}
        return replace(self, blocks=own | {block: {"bits": n} | own.get(block, {}) for block, n in bits.items()})


def is_within(name: str, block: str) -> bool:
    """Whether a module or parameter belongs to a block: "layers.1" has "layers.1.ffn" and not "layers.10"."""
    return f"{name}.".startswith(f"{block}.")


def _tables_within(block: str) -> list[str]:
    """The embeddings that a block has."""
    return [table for table in (WORD_EMBEDDING, POSITION_EMBEDDING) if is_within(table, block)]


def _keys_of(wanted: object, block: str) -> dict[str, Any]:
    """What a block says, as keys of a WeightPolicy."""
    if isinstance(wanted, Mapping):
        return dict(wanted)
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        return {"bits": wanted}
    raise RecipeError(f"blocks.{block} is {wanted!r}; allowed: a number of bits, or keys of a weight and their values")


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


def _check_share(key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise RecipeError(f"{key} is {value!r}; allowed: at least 0 and below 1")
