"""The encoder: BERT with a head over texts, tokens or sentences' vectors, its quantization points, and Hugging Face
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
from bitpress.encoder.layers import ActivationPoint, Linear, WordEmbedding
from bitpress.encoder.losses import loss_of, pair_loss, task_loss
from bitpress.encoder.masked_lm import MaskedLanguageHead
from bitpress.encoder.model import EncoderOutput, SequenceClassifier, head_parameters

__all__ = [
    "ActivationPoint",
    "EncoderConfig",
    "EncoderOutput",
    "Linear",
    "MaskedLanguageHead",
    "SequenceClassifier",
    "WordEmbedding",
    "has_head",
    "head_parameters",
    "load_classifier",
    "load_config",
    "load_extra_tensors",
    "loss_of",
    "pair_loss",
    "save_classifier",
    "save_encoder",
    "task_loss",
]
