"""The engine's arithmetic in torch: fused multiply-adds, one order of summation, its own elementwise functions
(docs/numerics.md). B texts of T tokens, or any leading dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bitpress.encoder.layers import Linear
from bitpress.runtime.engine import apply_function

LANES = 16  # kLanes of native/kernels/numerics.h


def product(a: Tensor, b: Tensor) -> Tensor:
    """An integer matrix product, exact: in fp32 while no partial sum can pass 2²⁴, else in fp64; as fp32."""
    largest = float(a.abs().max() * b.abs().max()) * a.shape[-1]
    if largest <= 2**24:
        return torch.matmul(a, b)
    return torch.matmul(a.double(), b.double()).float()


def float_linear(linear: Linear | nn.Linear, x: Tensor) -> Tensor:
    """One fma chain an output, inputs in order, then the bias. x [..., inputs] → [..., outputs]."""
    total = torch.zeros(*x.shape[:-1], linear.out_features)
    for k in range(linear.in_features):
        total = fma(x[..., k : k + 1], linear.weight[:, k], total)
    return total + linear.bias


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    n = torch.tensor(float(x.shape[-1]))
    centred = x - lane_sum(x) / n
    deviation = sqrt(lane_sum(centred, squares=True) / n + torch.tensor(norm.eps, dtype=torch.float32))
    return fma(centred / deviation, norm.weight, norm.bias)


def pooled(hidden: Tensor, pooling: str) -> Tensor:
    """Last hidden states [B, T, H] without padding → vectors [B, H]; a mean is added up token by token."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "max":
        return hidden.amax(dim=1)
    total = hidden[:, 0].clone()
    for t in range(1, hidden.shape[1]):
        total += hidden[:, t]
    return total / float(hidden.shape[1])


def lane_sum(x: Tensor, squares: bool = False) -> Tensor:
    """Sum of x (or of its squares, fused) over the last dimension, kept as size 1, in the engine's order."""
    size = x.shape[-1]
    lanes = nn.functional.pad(x, (0, -size % LANES)).unflatten(-1, (-1, LANES))
    total = torch.zeros_like(lanes[..., 0, :])
    for chunk in lanes.unbind(-2):
        total = fma(chunk, chunk, total) if squares else total + chunk
    while total.shape[-1] > 1:
        low, high = total.chunk(2, dim=-1)
        total = low + high
    return total


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a·b + c, the product exact and the sum rounded to fp64, then to fp32."""
    return (a.double() * b.double()).add_(c).float()


def sqrt(x: Tensor) -> Tensor:
    """The correctly rounded root (fp64 rounded to fp32 is); torch's own in fp32 may be one unit off."""
    return torch.sqrt(x.double()).float()


def apply(name: str, x: Tensor) -> Tensor:
    """An elementwise function of the engine."""
    x = x.contiguous().clone()
    apply_function(name, x.numpy())
    return x
