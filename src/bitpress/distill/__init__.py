"""Distillation: the losses between a student and its teacher."""

from __future__ import annotations

from bitpress.distill.directions import hidden_direction_loss, similarity_direction_loss
from bitpress.distill.losses import (
    LossWeights,
    attention_score_loss,
    distillation_loss,
    hidden_cosine_loss,
    hidden_state_loss,
    regression_loss,
    soft_cross_entropy,
)
from bitpress.distill.matching import HiddenProjections, Matching, compatible_heads, teacher_states

__all__ = [
    "HiddenProjections",
    "LossWeights",
    "Matching",
    "attention_score_loss",
    "compatible_heads",
    "distillation_loss",
    "hidden_cosine_loss",
    "hidden_direction_loss",
    "hidden_state_loss",
    "regression_loss",
    "similarity_direction_loss",
    "soft_cross_entropy",
    "teacher_states",
]
