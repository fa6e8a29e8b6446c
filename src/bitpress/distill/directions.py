r"""Direction matching (BiBERT §3.3; spec/bibert.md §5): tensors are compared without their lengths.

    D(X, Y) = ‖ X/‖X‖ − Y/‖Y‖ ‖ = √(2 − 2·cos(X, Y)),  between 0 and 2, not squared

with norms over the whole tensor of the batch, as released: a text weighs as much as it contributes to the norm. Binary
tensors are sums of ±1 whose size means nothing; only their direction can be asked to match.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bitpress.distill.padding import excludes

Projections = tuple[Tensor, Tensor, Tensor]

# The published rule for what masking leaves in a similarity matrix: at or below this, an entry counts as 0. It also
# deletes genuine large negatives; with padding="exclude" nothing needs it.
MASKED_SIMILARITY = -100.0


def similarity_direction_loss(
    student: Sequence[Projections],
    teacher: Sequence[Projections],
    mask: Tensor | None = None,
    *,
    padding: str = "exclude",
) -> Tensor:
    """Direction-matching distillation: Σ over layers and over X in query, key, value of D(X_S·X_Sᵀ, X_T·X_Tᵀ).

    A similarity matrix [B, h, T, T] is of the projections before they are quantized. Factors such as 1/√d cancel.

    Args:
        student, teacher: L × (query, key, value) [B, h, T, d]; heads and their sizes may differ only if h is equal.
        mask: bool [B, T], True at real tokens; None: all are real.
        padding: "exclude": pairs with a padded token count as 0 on both sides; "include": as released, with entries at
            or below −100 set to 0.
    """
    real = mask[:, None, :, None].to(student[0][0].dtype) if mask is not None and excludes(padding, mask) else None
    losses = []
    for ours, theirs in zip(student, teacher, strict=True):
        for x, y in zip(ours, theirs, strict=True):
            losses.append(_direction_distance(_similarity(x, real, padding), _similarity(y.detach(), real, padding)))
    return torch.stack(losses).sum()


def hidden_direction_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None, *, padding: str = "exclude"
) -> Tensor:
    """Σ over the embedding output and every layer of D(H_S, H_T).

    Args:
        student, teacher: L + 1 of [B, T, H].
        mask, padding: as above; excluded positions count as 0 on both sides.
    """
    real = mask[:, :, None].to(student[0].dtype) if mask is not None and excludes(padding, mask) else None
    losses = []
    for x, y in zip(student, teacher, strict=True):
        y = y.detach()
        losses.append(_direction_distance(x, y) if real is None else _direction_distance(x * real, y * real))
    return torch.stack(losses).sum()


def _similarity(x: Tensor, real: Tensor | None, padding: str) -> Tensor:
    """x [B, h, T, d] → x·xᵀ/√d [B, h, T, T]."""
    if real is not None:
        x = x * real
    similarity = torch.matmul(x, x.transpose(-1, -2)) / math.sqrt(x.shape[-1])
    return torch.nn.functional.threshold(similarity, MASKED_SIMILARITY, 0.0) if padding == "include" else similarity


def _direction_distance(x: Tensor, y: Tensor) -> Tensor:
    """D(x, y), with a gradient for x only. A tensor of zeros has no direction: it counts as zeros."""
    distance: Tensor = _DirectionDistance.apply(x, y)
    return distance


class _DirectionDistance(torch.autograd.Function):
    """Forward D = ‖δ‖ with δ = x/‖x‖ − y/‖y‖, backward (δ − (x̂·δ)·x̂) / (‖x‖·D), in as few passes as there are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        tiny = torch.finfo(x.dtype).tiny
        size = torch.linalg.vector_norm(x).clamp(min=tiny)
        unit = x / size
        difference = torch.sub(unit, y / torch.linalg.vector_norm(y).clamp(min=tiny))
        distance = torch.linalg.vector_norm(difference)
        ctx.save_for_backward(unit, difference, size, distance)
        return distance

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        unit, difference, size, distance = ctx.saved_tensors
        factor = torch.where(distance > 0, grads[0] / (size * distance), 0.0)  # equal directions: at the minimum
        along = torch.dot(unit.flatten(), difference.flatten())
        return torch.addcmul(difference, unit, -along).mul_(factor), None
