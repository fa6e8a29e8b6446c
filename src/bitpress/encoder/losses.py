"""The loss of a task: what fine-tuning minimises, and importance and sensitivity are measured by."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


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
