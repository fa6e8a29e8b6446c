"""The loss of a task: what fine-tuning minimises, and importance and sensitivity are measured by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bitpress.encoder.config import EncoderConfig

# The logit of a position that is padding. Its probability is exactly 0, since fp32 has no number below exp(-104) and
# real logits are tens; it is finite, so that 0 times its logarithm is 0.
NO_POSITION = -1e4


def task_loss(logits: Tensor, labels: Tensor, is_regression: bool, *, reduction: str = "mean") -> Tensor:
    """Cross-entropy, or of regression the squared error, over the texts or the labelled tokens.

    Args:
        logits: [B, C], of tokens [B, T, C]; of regression [B, 1].
        labels: int64 [B] or [B, T], where -100 (torch's own ``ignore_index``) has no label; of regression targets [B].
        reduction: "mean" or "sum".
    """
    if is_regression:
        return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype), reduction=reduction)
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


def model_loss(
    config: EncoderConfig, logits: Tensor, labels: Tensor, mask: Tensor, *, reduction: str = "mean"
) -> Tensor:
    """What a model of ``config`` learns by: :func:`task_loss`; of question answering the mean of that of the answer's
    start and that of its end.

    Args:
        logits, labels: of the model and the batch.
        mask: bool [B, T], True at real tokens.
        reduction: over texts or labelled tokens, "mean" or "sum".
    """
    if not config.answers_questions:
        return task_loss(logits, labels, config.is_regression, reduction=reduction)
    loss = task_loss(position_logits(logits, mask), position_labels(labels), False, reduction=reduction)
    return loss / 2 if reduction == "sum" else loss
