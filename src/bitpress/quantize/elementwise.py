"""Signs and masked gradients by vectorised arithmetic: torch's comparisons, boolean products and ``where`` take 2 to 8
times as long on a CPU, where they were a fifth of a step that trains a student of bits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def signs(x: Tensor) -> Tensor:
    """+1 where x ≥ 0 (−0 included), else −1; newly allocated."""
    return x.sign().add_(0.5).sign_()


def passed_within(gradient: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """gradient where low ≤ x ≤ high, else 0; fp32."""
    return torch.ops.aten.hardtanh_backward(gradient, x, _beside(low, -math.inf), _beside(high, math.inf))


def passed_below(gradient: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """gradient where low ≤ x < high, else 0; fp32."""
    return torch.ops.aten.hardtanh_backward(gradient, x, _beside(low, -math.inf), high)


def _beside(bound: float, towards: float) -> float:
    """The fp32 number next to ``bound``: the kernel leaves its bounds out."""
    return float(torch.nextafter(torch.tensor(bound), torch.tensor(towards)))
