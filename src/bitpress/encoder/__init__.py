"""The encoder: BERT with a head over texts or tokens, or as one of sentences, its quantization points, and Hugging Face
checkpoints (needs torch)."""

from __future__ import annotations

from bitpress.encoder.checkpoint import (
    has_head,
    load_classifier,
    load_config,
    load_extra_tensors,
    save_classifier,
    save_encoder,
)
from bitpress.encoder.config import EncoderConfig
from bitpress.encoder.layers import ActivationPoint, EmbeddingTable, Linear
from bitpress.encoder.losses import model_loss, pair_loss, position_labels, position_logits, task_loss
from bitpress.encoder.masked_lm import MaskedLanguageHead
from bitpress.encoder.model import EncoderOutput, SequenceClassifier, head_parameters

__all__ = [
    "ActivationPoint",
    "EmbeddingTable",
    "EncoderConfig",
    "EncoderOutput",
    "Linear",
    "MaskedLanguageHead",
    "SequenceClassifier",
    "has_head",
    "head_parameters",
    "load_classifier",
    "load_config",
    "load_extra_tensors",
    "model_loss",
    "pair_loss",
    "position_labels",
    "position_logits",
    "save_classifier",
    "save_encoder",
    "task_loss",
]
