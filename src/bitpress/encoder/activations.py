"""The feed-forward activations of BERT checkpoints, by the names that `transformers` gives them.

Left out because they are not a fixed formula: ``prelu`` and ``xielu`` carry learned parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)


def _gelu_tanh(x: Tensor) -> Tensor:
    """Hendrycks & Gimpel 2016, the tanh approximation."""
    return F.gelu(x, approximate="tanh")


def _gelu_tanh_composed(x: Tensor) -> Tensor:
    """The same approximation spelled out, as the first BERT and GPT releases computed it."""
    return 0.5 * x * (1.0 + torch.tanh(_SQRT_2_OVER_PI * (x + 0.044715 * x.pow(3.0))))


def _gelu_fast(x: Tensor) -> Tensor:
    """The tanh approximation with sqrt(2/pi) cut to ten digits; kept apart because checkpoints name it."""
    return 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def _gelu_erf_composed(x: Tensor) -> Tensor:
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


def _gelu_10(x: Tensor) -> Tensor:
    """GELU clipped to [-10, 10] (Wu et al. 2020, arXiv 2004.09602)."""
    return F.gelu(x).clamp(-10.0, 10.0)


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _laplace(x: Tensor) -> Tensor:
    """0.5 (1 + erf((x - mu) / (sigma sqrt 2))) with the constants of MEGA (arXiv 2209.10655)."""
    return 0.5 * (1.0 + torch.erf((x - 0.707107) / (0.282095 * math.sqrt(2.0))))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_10": _gelu_10,
    "gelu_accurate": _gelu_tanh_composed,
    "gelu_fast": _gelu_fast,
    "gelu_new": _gelu_tanh_composed,
    "gelu_python": _gelu_erf_composed,
    "gelu_python_tanh": _gelu_tanh_composed,
    "gelu_pytorch_tanh": _gelu_tanh,
    "hardswish": F.hardswish,
    "laplace": _laplace,
    "leaky_relu": F.leaky_relu,
    "linear": lambda x: x,
    "mish": F.mish,
    "quick_gelu": _quick_gelu,
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "sqrtsoftplus": lambda x: F.softplus(x).sqrt(),
    "swish": F.silu,
    "tanh": torch.tanh,
}
