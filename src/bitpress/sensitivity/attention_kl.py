r"""How far quantization moves attention: the Kullback–Leibler divergence of attention rows (Q-BERT, Shen et al. 2020,
§5.2).

    KL(P‖P') = Σ_j P_j·log(P_j / max(P'_j, 1e-12))     P of the full model, P' of the quantized one, in nats

The mean over the rows of real tokens, by layer and head. 0 of two equal models; a head that quantization changes much
stands out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from bitpress.encoder import SequenceClassifier
from bitpress.encoder.model import Attention
from bitpress.errors import RecipeError
from bitpress.sensitivity.losses import sample_batches
from bitpress.train import EncodedDataset

SMALLEST = 1e-12


def attention_kl(
    full: SequenceClassifier, student: SequenceClassifier, data: EncodedDataset, indices: np.ndarray | None = None
) -> np.ndarray:
    """Mean KL(P‖P') in nats, float64 [L, h], over the query rows of every real token.

    Args:
        full, student: of one tokenizer, with as many layers and heads; put in eval mode.
        indices: which texts of ``data``, int64; None: all.

    Raises:
        RecipeError: shapes that cannot be compared, or attention weights that are no probabilities.
    """
    shapes = [(m.config.num_hidden_layers, m.config.num_attention_heads) for m in (full, student)]
    if shapes[0] != shapes[1]:
        raise RecipeError(
            "attention is compared head by head, but the full model has {} layers of {} heads and the other one "
            "{} of {}".format(*shapes[0], *shapes[1])
        )
    full.eval()
    student.eval()
    total, rows = torch.zeros(shapes[0], dtype=torch.float64), 0
    chosen = np.arange(len(data)) if indices is None else indices
    for batch in sample_batches(data, chosen, next(full.parameters()).device):
        arguments = (batch.input_ids, batch.attention_mask, batch.token_type_ids)
        with torch.inference_mode(), _observed(full) as expected, _observed(student) as found:
            full(*arguments)
            student(*arguments)
        real = batch.attention_mask
        for layer, (p, q) in enumerate(zip(expected, found, strict=True)):
            total[layer] += _row_divergence(p, q).masked_fill(~real[:, None, :], 0.0).sum(dim=(0, 2)).cpu()
        rows += int(real.sum())
    return (total / max(rows, 1)).numpy()


def _row_divergence(p: Tensor, q: Tensor) -> Tensor:
    """p, q [B, h, T, T] → KL of each row, fp64 [B, h, T]; 0·log 0 is 0."""
    p, q = p.double(), q.double()
    return (torch.xlogy(p, p) - p * q.clamp_min(SMALLEST).log()).sum(dim=-1)


@contextmanager
def _observed(model: SequenceClassifier) -> Iterator[list[Tensor]]:
    """While it lasts, a list gets each layer's attention weights [B, h, T, T] as they enter the product."""
    seen: list[Tensor] = []
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    if any(attention.weigh is not None for attention in attentions):
        raise RecipeError("the model's attention weights are bits, not probabilities; they have no divergence")
    try:
        for attention in attentions:
            attention.observe = lambda weights, real: seen.append(weights)
        yield seen
    finally:
        for attention in attentions:
            attention.observe = None
