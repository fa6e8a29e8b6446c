"""What a low-bit student's attention does while it trains: written to the run's scalars at every evaluation.

An attention weight of one bit carries at most one bit of information, and none where all weights are equal: the
entropy of a head's weights says how much is left (BiBERT §3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitpress.encoder.model import Attention
from bitpress.quantize import elastic_quantizers
from bitpress.train import EncodedDataset, collate

PROBED_TEXTS = 128


def attention_probe(dataset: EncodedDataset) -> Callable[[nn.Module], dict[str, Any]]:
    """A function of a model in eval mode that runs at most PROBED_TEXTS of ``dataset``, spread over it.

    It returns, each as a list of L layers:

    - ``attention_entropy`` [L, h]: bits, −p·log₂p − (1−p)·log₂(1−p) with p the share of real (query, key) pairs whose
      weight is not 0
    - ``attention_ones`` [L, h]: p
    - ``attention_ones_a_row`` [L, 5]: minimum, quartiles and maximum over queries and heads of a query's own share
    - ``attention_empty_rows`` [L]: share of queries that attend to nothing

    or nothing at all while elastic quantizers still wait for the first batch, which must be one of training.
    """
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), PROBED_TEXTS)).astype(np.int64))

    def probe(model: nn.Module) -> dict[str, Any]:
        if not all(quantizer.started for quantizer in elastic_quantizers(model).values()):
            return {}
        seen: list[_Layer] = []
        for module in model.modules():
            if isinstance(module, Attention):
                layer = _Layer()
                module.observe = layer.add
                seen.append(layer)
        try:
            batch = collate(dataset, indices, next(model.parameters()).device)
            with torch.inference_mode():
                model(batch.input_ids, batch.attention_mask, batch.token_type_ids)
        finally:
            for module in model.modules():
                if isinstance(module, Attention):
                    module.observe = None
        return {
            "attention_entropy": [_rounded(binary_entropy(layer.ones)) for layer in seen],
            "attention_ones": [_rounded(layer.ones) for layer in seen],
            "attention_ones_a_row": [_rounded(layer.quartiles) for layer in seen],
            "attention_empty_rows": [round(float(layer.empty), 6) for layer in seen],
        }

    return probe


def binary_entropy(p: Tensor) -> Tensor:
    """−p·log₂p − (1−p)·log₂(1−p), in bits; 0 at p = 0 and 1."""
    return torch.special.entr(torch.stack([p, 1 - p])).sum(dim=0) / np.log(2.0)


class _Layer:
    """Counts of one layer's attention weights."""

    ones: Tensor  # [h]
    quartiles: Tensor  # [5]
    empty: Tensor

    def add(self, weights: Tensor, real: Tensor | None) -> None:
        """weights [B, h, T, T]; real bool [B, T] or None."""
        texts, length = len(weights), weights.shape[-1]
        real = torch.ones(texts, length, dtype=torch.bool) if real is None else real.cpu()
        kept = ((weights != 0).cpu() & real[:, None, None, :]).sum(dim=-1).float()  # [B, h, T]
        keys = real.sum(dim=-1)[:, None, None].expand_as(kept)
        queries = real[:, None, :].expand_as(kept)
        self.ones = (kept * queries).sum(dim=(0, 2)) / (keys * queries).sum(dim=(0, 2))
        shares = (kept / keys)[queries]
        self.quartiles = torch.quantile(shares, torch.linspace(0, 1, 5))
        self.empty = (shares == 0).float().mean()


def _rounded(x: Tensor) -> list[float]:
    return [round(float(value), 6) for value in x]
