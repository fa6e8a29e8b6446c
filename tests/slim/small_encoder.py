"""The Hugging Face configuration that the tests of this folder shrink."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 36,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "initializer_range": 0.3,
}
