"""Tiny random BERT checkpoints, written by transformers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

TINY = {
    "vocab_size": 53,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 19,
    "type_vocab_size": 2,
    # A large spread, so that scores, activations and differences between formulas are not all near 0.
    "initializer_range": 0.4,
}


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., tuple[Path, Any]]:
    """make_checkpoint(seed=0, **config) → (directory, the transformers model in eval mode)."""

    def make(seed: int = 0, **overrides: Any) -> tuple[Path, Any]:
        torch.manual_seed(seed)
        config = transformers.BertConfig(**{**TINY, **overrides})
        model = transformers.BertForSequenceClassification(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:  # biases start at 0 and LayerNorm gains at 1: a swap would go unseen
                    parameter.add_(0.1 * torch.randn_like(parameter))
        directory = tmp_path / f"checkpoint-{len(list(tmp_path.iterdir()))}"
        model.save_pretrained(directory)
        return directory, model

    return make


@pytest.fixture
def batch() -> Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """batch(rows, length, padded, pairs) → (input_ids, attention_mask, token_type_ids)."""

    def make(
        rows: int = 3, length: int = 7, padded: bool = False, pairs: bool = False, vocabulary: int = TINY["vocab_size"]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(rows * 100 + length)
        ids = torch.randint(1, vocabulary, (rows, length), generator=generator)
        mask = torch.ones_like(ids)
        if padded:
            for row in range(rows):
                mask[row, max(1, length - 2 * row) :] = 0
        types = (torch.arange(length) >= length // 2).long().expand(rows, length) if pairs else torch.zeros_like(ids)
        return ids * mask, mask, types * mask

    return make
