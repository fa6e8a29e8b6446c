r"""Elastic binarization and its many-bit form: activations on a learned scale above a learned threshold.

Source: BiT (Liu et al. 2022, arXiv 2205.13016, §3.2; spec/bit.md A2). With more than one bit it is LSQ (Esser et al.
2020, arXiv 1902.08153), as in BinaryBERT.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bitpress.errors import RecipeError, TrainingError

ELASTIC_BITS = (1, 2, 4)
SCALES = ("learned", "static")
THRESHOLDS = ("channel", "scalar", "none")
SMALLEST_STEP = 1e-5


class ElasticQuantizer(nn.Module):
    r"""q(x) = α·c, with u = (x + shift) / α and the code c:

        1 bit, signed        c = +1 where x + shift ≥ 0, else −1
        1 bit, not signed    c = 1 where x + shift ≥ α/2, else 0
        b bits, signed       c = clamp(round(u), −2^(b−1), 2^(b−1) − 1)
        b bits, not signed   c = clamp(round(u), 0, 2^b − 1)

    Gradients, with lo and hi the lowest and the highest code (−1 and 1 for signed bits):

        ∂q/∂x = ∂q/∂shift = 1 where lo ≤ u ≤ hi, else 0
        ∂q/∂α = c for signed bits; otherwise lo where u < lo, hi where u ≥ hi, else c − u
        α's is multiplied by 1/√(n·Q), with n elements of x and Q = 1, 2^(b−1) − 1 or 2^b − 1: the largest code

    α starts from the first batch, at 2·mean|x|/√Q (signed) or 4·mean|x|/√Q, and the shift at 0. A tie of a bit is 1,
    as everywhere in bitpress; the released code rounds half to even, where u = ½ gives 0.

    Args:
        bits: 1, 2 or 4.
        signed: −1 and +1, or 0 and 1: for numbers that are never negative.
        channels: elements of the last dimension, for a shift of each ("channel"); unused with other thresholds.
        scale: "learned", or "static": as it started.
        threshold: what the shift is: one a "channel", one "scalar", or "none".

    The scale, a buffer that says whether it has started, and the shift travel in checkpoints.

    Raises:
        RecipeError: an argument is none of the above.
    """

    shift: nn.Parameter | None
    started: Tensor

    def __init__(
        self,
        bits: int = 1,
        signed: bool = True,
        channels: int | None = None,
        scale: str = "learned",
        threshold: str = "none",
    ) -> None:
        super().__init__()
        for key, value, allowed in (
            ("bits", bits, ELASTIC_BITS),
            ("scale", scale, SCALES),
            ("threshold", threshold, THRESHOLDS),
        ):
            if value not in allowed:
                raise RecipeError(f"{key} is {value!r}; allowed: {', '.join(map(str, allowed))}")
        if threshold == "channel" and channels is None:
            raise RecipeError("threshold 'channel' needs the number of channels")
        self.bits, self.signed = bits, signed
        self.scale = nn.Parameter(torch.ones(1), requires_grad=scale == "learned")
        size = {"channel": channels, "scalar": 1, "none": None}[threshold]
        self.shift = None if size is None else nn.Parameter(torch.zeros(size))
        self.register_buffer("started", torch.zeros(1, dtype=torch.bool))

    @property
    def lowest(self) -> int:
        """The lowest code."""
        if not self.signed:
            return 0
        return -1 if self.bits == 1 else -(2 ** (self.bits - 1))

    @property
    def highest(self) -> int:
        """The highest code, Q."""
        if self.bits == 1:
            return 1
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def step(self) -> Tensor:
        """α as it is used: a scalar above 0, without gradient."""
        return self.scale.detach().clamp(min=SMALLEST_STEP).squeeze(0)

    def forward(self, x: Tensor, kind: str = "rows", mask: Tensor | None = None) -> Tensor:
        """x fp32 of any shape → q(x). ``kind`` and ``mask`` as other activation quantizers have them, without effect
        on the result: the scale is the same for every token."""
        if not self.started:
            self._start(x)
        quantized: Tensor = _Elastic.apply(x, self.scale, self.shift, self)
        return quantized

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes as int8 of x's shape: what the next forward pass multiplies by α.

        Raises:
            TrainingError: no batch has set the scale yet.
        """
        if not self.started:
            raise TrainingError("an elastic quantizer has not seen a batch; run at least one forward pass first")
        return self._codes(x if self.shift is None else x + self.shift).to(torch.int8)

    def continue_from(self, other: ElasticQuantizer) -> None:
        """Begin with the scale and the shift of ``other``, of an earlier stage, where it has such."""
        with torch.no_grad():
            self.scale.copy_(other.scale)
            self.started.copy_(other.started)
            if self.shift is not None and other.shift is not None and self.shift.shape == other.shift.shape:
                self.shift.copy_(other.shift)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, signed={self.signed}, codes={self.lowest}…{self.highest}"

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        factor = 2.0 if self.signed else 4.0
        # A batch of zeros, or one that has diverged: any positive scale, so that training ends by its own error.
        start = (factor * x.abs().mean() / math.sqrt(self.highest)).nan_to_num(1.0)
        self.scale.copy_(torch.where(start > 0, start, 1.0))
        self.started.fill_(True)

    def _codes(self, shifted: Tensor) -> Tensor:
        """Codes as fp32, newly allocated."""
        if self.bits > 1:
            return (shifted / self.step).round_().clamp_(self.lowest, self.highest)
        if self.signed:
            return (shifted >= 0).to(shifted.dtype).mul_(2).sub_(1)
        return (shifted >= self.step * 0.5).to(shifted.dtype)


class _Elastic(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor | None, quantizer: ElasticQuantizer) -> Tensor:
        shifted = x if shift is None else x + shift
        codes, step = quantizer._codes(shifted), quantizer.step
        ctx.quantizer, ctx.shift_shape = quantizer, None if shift is None else shift.shape
        ctx.save_for_backward(shifted / step, codes)
        return codes * step

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        u, codes = ctx.saved_tensors
        quantizer, gradient = ctx.quantizer, grads[0]
        lowest, highest = quantizer.lowest, quantizer.highest
        by_x = gradient * ((u >= lowest) & (u <= highest))
        by_scale = by_shift = None
        if ctx.needs_input_grad[1]:
            slope = codes
            if not (quantizer.bits == 1 and quantizer.signed):
                slope = torch.where((u >= lowest) & (u < highest), codes - u, codes)
            by_scale = ((gradient * slope).sum() / math.sqrt(u.numel() * highest)).reshape(1)
        if ctx.needs_input_grad[2]:
            by_shift = by_x.sum().reshape(1)
            if ctx.shift_shape[0] != 1:
                by_shift = by_x.flatten(0, -2).sum(dim=0)
        return by_x, by_scale, by_shift, None
