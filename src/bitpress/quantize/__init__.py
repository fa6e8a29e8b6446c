"""Quantizers (one file a scheme), the policy that assigns them, and its application to an encoder."""

from __future__ import annotations

from bitpress.quantize.apply import (
    AppliedPolicy,
    LeftFp32,
    ReportRow,
    activation_ranges,
    apply_policy,
    elastic_quantizers,
    encode_weights,
    fold_centres,
    has_centres,
    weight_policies,
)
from bitpress.quantize.binary import (
    AllAttention,
    BinaryQuantizer,
    BooleanAttention,
    CentredSignQuantizer,
    SignQuantizer,
)
from bitpress.quantize.elastic import ElasticQuantizer
from bitpress.quantize.gobo import GoboCodes, GoboQuantizer
from bitpress.quantize.learned_range import LearnedRangeQuantizer
from bitpress.quantize.loss_aware import TERNARY_QUANTIZERS, LossAwareTernaryQuantizer
from bitpress.quantize.policy import (
    POSITION_EMBEDDING,
    WORD_EMBEDDING,
    ActivationPolicy,
    EmbeddingPolicy,
    Policy,
    PositionPolicy,
    WeightPolicy,
    is_within,
)
from bitpress.quantize.splitting import split_ternary
from bitpress.quantize.ternary import TernaryQuantizer
from bitpress.quantize.uniform import ActivationQuantizer
from bitpress.quantize.uniform_weights import UniformWeightQuantizer

__all__ = [
    "POSITION_EMBEDDING",
    "TERNARY_QUANTIZERS",
    "WORD_EMBEDDING",
    "ActivationPolicy",
    "ActivationQuantizer",
    "AllAttention",
    "AppliedPolicy",
    "BinaryQuantizer",
    "BooleanAttention",
    "CentredSignQuantizer",
    "ElasticQuantizer",
    "EmbeddingPolicy",
    "GoboCodes",
    "GoboQuantizer",
    "LearnedRangeQuantizer",
    "LeftFp32",
    "LossAwareTernaryQuantizer",
    "Policy",
    "PositionPolicy",
    "ReportRow",
    "SignQuantizer",
    "TernaryQuantizer",
    "UniformWeightQuantizer",
    "WeightPolicy",
    "activation_ranges",
    "apply_policy",
    "elastic_quantizers",
    "encode_weights",
    "fold_centres",
    "has_centres",
    "is_within",
    "split_ternary",
    "weight_policies",
]
