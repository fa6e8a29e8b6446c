"""The loss whose curvature is measured: of the task, on random samples of its training set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor, nn

from bitpress.encoder import EncoderConfig, SequenceClassifier, model_loss
from bitpress.errors import TrainingError
from bitpress.sensitivity.blocks import Block
from bitpress.sensitivity.hessian import BlockHessians
from bitpress.sensitivity.report import SensitivitySettings
from bitpress.train import Batch, EncodedDataset, collate

# Padded tokens a batch: few enough that texts of similar lengths are together, enough to keep matrix products busy.
BATCH_TOKENS = 1024
# Graphs are kept from one product to the next up to so many padded tokens. A token holds about 0.6 MiB with 6 layers of
# 384 columns, first and second derivatives together; four times that in BERT-base.
KEPT_TOKENS = 3072

Loss = Callable[[nn.Module, Batch], Tensor]


def summed_loss(config: EncoderConfig) -> Loss:
    """(model, batch) → the sum over the batch's texts, or pairs of texts, of what a model of ``config`` learns by
    (:func:`bitpress.encoder.model_loss`), of token classification summed over a text's words; differentiable twice.

    Padding is masked, so it is no part of the loss. Attention goes step by step (``collect``), because the fused one
    has no second derivative.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits: Tensor = model(batch.input_ids, batch.attention_mask, batch.token_type_ids, collect=True).logits
        if batch.labels is None and not (config.gives_vectors and batch.is_paired):
            raise TrainingError("the data has no labels, without which there is no loss; give labelled text")
        return model_loss(config, logits, batch.labels, batch.attention_mask, reduction="sum")

    return loss


def sample_indices(lengths: np.ndarray, number: int, settings: SensitivitySettings) -> np.ndarray:
    """Sample ``number``: a random ``settings.share`` of texts of ``lengths`` tokens, as far as ``settings.texts`` and
    ``settings.tokens`` reach; int64, at least one.

    Samples are cut from one permutation after another, so they are disjoint until a permutation is used up.
    """
    size = max(1, round(settings.share * len(lengths)))
    a_pass = len(lengths) // size
    order = np.random.default_rng([settings.seed, number // a_pass]).permutation(len(lengths))
    start = (number % a_pass) * size
    sample = order[start : start + min(size, settings.texts)]
    return sample[: max(1, int(np.searchsorted(np.cumsum(lengths[sample]), settings.tokens, side="right")))]


def sample_batches(data: EncodedDataset, indices: np.ndarray, device: object = "cpu") -> list[Batch]:
    """The texts ``indices``, similar lengths together, in batches of at most :data:`BATCH_TOKENS` with padding (a
    longer text is alone)."""
    order = indices[np.argsort(data.lengths[indices], kind="stable")]
    batches, start = [], 0
    while start < len(order):
        end = start + 1
        # Sorted by length, so the last text of a batch is its width.
        while end < len(order) and (end + 1 - start) * data.lengths[order[end]] <= BATCH_TOKENS:
            end += 1
        batches.append(collate(data, order[start:end], device))  # type: ignore[arg-type]
        start = end
    return batches


def sample_hessians(
    model: SequenceClassifier, blocks: Sequence[Block], batches: Sequence[Batch]
) -> BlockHessians[Batch]:
    """Of the mean loss over all texts of ``batches``."""
    keep = sum(batch.input_ids.numel() for batch in batches) <= KEPT_TOKENS
    return BlockHessians(model, blocks, batches, summed_loss(model.config), sum(map(len, batches)), keep)
