"""The loss whose curvature is measured: of the task, on random samples of its training set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from bitpress.errors import TrainingError
from bitpress.train import Batch, EncodedDataset, collate

# Padded tokens of a batch whose graph is held: about 0.6 MiB a token for 6 layers of 384 columns, first and second
# derivatives together.
GRAPH_TOKENS = 2048

Loss = Callable[[nn.Module, Batch], Tensor]


def summed_loss(is_regression: bool) -> Loss:
    """(model, batch) → the sum over the batch's texts of cross-entropy, or of squared errors; differentiable twice.

    Padding is masked, so it is no part of the loss. Attention goes step by step (``collect``), because the fused one
    has no second derivative.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits: Tensor = model(batch.input_ids, batch.attention_mask, batch.token_type_ids, collect=True).logits
        if batch.labels is None:
            raise TrainingError("the data has no labels, without which there is no loss; give labelled text")
        if is_regression:
            return F.mse_loss(logits.squeeze(-1), batch.labels.to(logits.dtype), reduction="sum")
        return F.cross_entropy(logits, batch.labels, reduction="sum")

    return loss


def sample_indices(count: int, share: float, most: int, number: int, seed: int) -> np.ndarray:
    """Sample ``number`` of a set of ``count`` texts: at most ``most`` of a random ``share`` of it, int64, at least one.

    Samples are cut from one permutation after another, so they are disjoint until a permutation is used up.
    """
    size = max(1, round(share * count))
    a_pass = count // size
    order = np.random.default_rng([seed, number // a_pass]).permutation(count)
    start = (number % a_pass) * size
    return order[start : start + min(size, most)]


def sample_batches(data: EncodedDataset, indices: np.ndarray, device: object = "cpu") -> list[Batch]:
    """The texts ``indices``, similar lengths together, in batches of at most :data:`GRAPH_TOKENS` with padding (a
    longer text is alone)."""
    order = indices[np.argsort(data.lengths[indices], kind="stable")]
    batches, start = [], 0
    while start < len(order):
        end = start + 1
        # Sorted by length, so the last text of a batch is its width.
        while end < len(order) and (end + 1 - start) * data.lengths[order[end]] <= GRAPH_TOKENS:
            end += 1
        batches.append(collate(data, order[start:end], device))  # type: ignore[arg-type]
        start = end
    return batches
