"""The loss of a task: what fine-tuning minimises, and importance and sensitivity are measured by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bitpress.encoder.config import EncoderConfig

# The logit of a position that is padding. Its probability is exactly 0, since fp32 has no number below exp(-104) and
# real logits are tens; it is finite, so that 0 times its logarithm is 0.
NO_POSITION = -1e4
# Cosines of other texts in the batch are logits after this factor, as in sentence-transformers (its losses' `scale`).
CONTRASTIVE_SCALE = 20.0


def model_loss(
    config: EncoderConfig, outputs: Tensor, labels: Tensor | None, mask: Tensor, *, reduction: str = "mean"
) -> Tensor:
    """What a model of ``config`` learns by: :func:`task_loss`; of question answering the mean of that of the answer's
    start and that of its end, of sentence embeddings :func:`pair_loss`.

    Args:
        outputs, labels: of the model and the batch; only pairs of texts say something without labels.
        mask: bool [B, T], True at real tokens.
        reduction: over texts, pairs or labelled tokens, "mean" or "sum".
    """
    if config.gives_vectors:
        return pair_loss(outputs, labels, reduction=reduction)
    assert labels is not None, "only pairs of texts say something without labels"
    if not config.answers_questions:
        return task_loss(outputs, labels, config.is_regression, reduction=reduction)
    loss = task_loss(position_logits(outputs, mask), position_labels(labels), False, reduction=reduction)
    return loss / 2 if reduction == "sum" else loss


def task_loss(logits: Tensor, labels: Tensor, is_regression: bool, *, reduction: str = "mean") -> Tensor:
    """Cross-entropy, or of regression the squared error, over the texts or the labelled tokens; where a text has any
    number of labels, binary cross-entropy over texts and labels.

    Args:
        logits: [B, C], of tokens [B, T, C]; of regression [B, 1].
        labels: int64 [B] or [B, T], where -100 (torch's own ``ignore_index``) has no label; of regression targets [B];
            floats [B, C], 1 where a text has a label and else 0.
        reduction: "mean" or "sum".
    """
    if is_regression:
        return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype), reduction=reduction)
    if labels.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction=reduction)
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction=reduction)


def position_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits of question answering as those of 2·B choices among positions: where the answer of each of B texts begins,
    then where each ends (Devlin et al. 2018, §4.2). Every token is a choice, padding is none.

    Args:
        logits: [B, T, 2].
        mask: bool [B, T], True at real tokens.

    Returns:
        [2·B, T].
    """
    return torch.where(mask[:, :, None], logits, NO_POSITION).permute(2, 0, 1).flatten(0, 1)


def position_labels(labels: Tensor) -> Tensor:
    """First and last token of each answer, int64 [B, 2], as labels of :func:`position_logits`, [2·B]."""
    return labels.t().flatten()


def pair_loss(vectors: Tensor, scores: Tensor | None, *, reduction: str = "mean") -> Tensor:
    """The loss of B pairs of texts, over the pairs.

    With scores the squared error of the pair's cosine (Reimers & Gurevych 2019, arXiv 1908.10084, §3). Without, the
    second text is to be found among those of the whole batch: cross-entropy over the first one's cosines to them
    (Henderson et al. 2017, arXiv 1705.00652, §4.4), ``CONTRASTIVE_SCALE`` times.

    Args:
        vectors: [2B, H], the two of a pair one after the other.
        scores: [B], cosines to come near to; None: there are none.
        reduction: "mean" or "sum".
    """
    first, second = vectors[0::2], vectors[1::2]
    if scores is not None:
        cosines = F.cosine_similarity(first, second, dim=-1)
        return F.mse_loss(cosines, scores.to(cosines.dtype), reduction=reduction)
    cosines = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T
    own = torch.arange(len(cosines), device=cosines.device)
    return F.cross_entropy(CONTRASTIVE_SCALE * cosines, own, reduction=reduction)
