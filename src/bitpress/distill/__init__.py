"""Distillation: the losses between a student and its teacher."""

from __future__ import annotations

from bitpress.distill.directions import hidden_direction_loss, similarity_direction_loss
from bitpress.distill.losses import (
    LossWeights,
    attention_score_loss,
    distillation_loss,
    hidden_state_loss,
    regression_loss,
    soft_cross_entropy,
)

__all__ = [
    "LossWeights",
    "attention_score_loss",
    "distillation_loss",
    "hidden_direction_loss",
    "hidden_state_loss",
    "regression_loss",
    "similarity_direction_loss",
    "soft_cross_entropy",
]
