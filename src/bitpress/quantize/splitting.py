r"""Ternary weight splitting: one ternary weight becomes the sum of two binary ones (BinaryBERT, Bai et al. 2021, arXiv
2012.15701, §3.2; spec/bit.md B). Training goes on from there, each of the two with a scale of its own.

Over a group of N latent weights w that the ternary quantizer gives the codes t and the scale α, with I where t ≠ 0 and
J where t = 0:

    I             w₁ = a·w        w₂ = (1 − a)·w
    J, w > 0      w₁ = w + b      w₂ = −b
    J, w ≤ 0      w₁ = b          w₂ = w − b

    b = (α·N − Σ|w|) / 2|J|       so that mean|w₁| + mean|w₂| = α
    a = (Σ_I|w| − Σ_J w) / 2Σ_I|w|       so that both are α/2

Binarized without a centre, sgn(w₁)·mean|w₁| + sgn(w₂)·mean|w₂| is then α·t, but for the rounding of w₁ and w₂.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bitpress.encoder.layers import EmbeddingTable, Linear
from bitpress.errors import TrainingError
from bitpress.quantize.loss_aware import TERNARY_QUANTIZERS, LossAwareTernaryQuantizer
from bitpress.quantize.ternary import TernaryQuantizer

# Above it, w₁ and w₂ of a zero code differ in sign even where a whole group is zero, so that their sum is 0.
_SMALLEST = torch.finfo(torch.float32).tiny


@torch.no_grad()
def split_ternary(model: nn.Module) -> int:
    """Give every linear and the word embedding that has a ternary quantizer its ``second_weight``, in place.

    Returns:
        How many weights were split.

    Raises:
        TrainingError: none has a ternary quantizer, one is split already, or one cannot be split evenly.
    """
    count = 0
    for name, module in model.named_modules():
        if not isinstance(module, (Linear, EmbeddingTable)) or not isinstance(
            module.weight_quantizer, TERNARY_QUANTIZERS
        ):
            continue
        if module.second_weight is not None:
            raise TrainingError(f"{name}.weight is split already; a stage with split: true follows a ternary one once")
        try:
            first, second = split_weight(module.weight, module.weight_quantizer)
        except ValueError as error:
            raise TrainingError(f"{name}.weight: {error}") from None
        module.weight.copy_(first)
        module.second_weight = nn.Parameter(second)
        count += 1
    if not count:
        raise TrainingError("nothing to split: no weight is ternary; a stage with split: true follows a ternary one")
    return count


@torch.no_grad()
def split_weight(weight: Tensor, quantizer: TernaryQuantizer | LossAwareTernaryQuantizer) -> tuple[Tensor, Tensor]:
    """weight fp32 [rows, cols], latent → (w₁, w₂), the same.

    Raises:
        ValueError: the zero codes of a group weigh so much to one side that no a in (0, 1) evens its halves.
    """
    codes, scale = quantizer.encode(weight)
    by_group = (weight if quantizer.group == "row" else weight.reshape(1, -1)).double()
    kept = (codes != 0).reshape(by_group.shape)
    alpha = scale.double().unsqueeze(1) * kept.any(dim=1, keepdim=True)  # an empty group has scale 1
    size = by_group.abs()
    kept_size = (size * kept).sum(dim=1, keepdim=True)
    b = (alpha * by_group.shape[1] - size.sum(dim=1, keepdim=True)) / (2 * (~kept).sum(dim=1, keepdim=True))
    b = torch.where(kept.all(dim=1, keepdim=True), 0.0, b).clamp(min=_SMALLEST)
    left_out = (by_group * ~kept).sum(dim=1, keepdim=True)
    a = torch.where(kept_size > 0, (kept_size - left_out) / (2 * kept_size), 0.5)
    if not bool(((a > 0) & (a < 1)).all()):
        raise ValueError("its zero codes all weigh to one side, so that it has no even split; train the stage longer")
    above = torch.where(by_group > 0, by_group, 0.0)
    first = torch.where(kept, a * by_group, above + b)
    second = torch.where(kept, (1 - a) * by_group, (by_group - above) - b)
    return first.float().reshape(weight.shape), second.float().reshape(weight.shape)
