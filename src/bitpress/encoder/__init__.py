"""The encoder: BERT with a classification head, its quantization points, and Hugging Face checkpoints (needs torch)."""

from __future__ import annotations

from bitpress.encoder.checkpoint import (
    load_classifier,
    load_config,
    load_extra_tensors,
    save_classifier,
    save_encoder,
)
from bitpress.encoder.config import EncoderConfig
from bitpress.encoder.layers import ActivationPoint, Linear, WordEmbedding
from bitpress.encoder.masked_lm import MaskedLanguageHead
from bitpress.encoder.model import EncoderOutput, SequenceClassifier

__all__ = [
    "ActivationPoint",
    "EncoderConfig",
    "EncoderOutput",
    "Linear",
    "MaskedLanguageHead",
    "SequenceClassifier",
    "WordEmbedding",
    "load_classifier",
    "load_config",
    "load_extra_tensors",
    "save_classifier",
    "save_encoder",
]
