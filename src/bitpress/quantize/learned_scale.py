r"""What quantizers on a learned scale have in common: start, codes' bounds and gradients (LSQ: Esser et al. 2020, arXiv
1902.08153; of one bit: BiT, Liu et al. 2022, arXiv 2205.13016, §3.2; spec/bit.md A2 and B).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bitpress.errors import TrainingError
from bitpress.quantize.elementwise import passed_below, passed_within

SMALLEST_STEP = 1e-5


class LearnedScale(nn.Module):
    r"""q(x) = α·c for codes c of u = (x + shift) / α, which subclasses define, between lo and hi.

    With lo and hi the lowest and the highest code (−1 and 1 for signed bits, −2^(b−1) and 2^(b−1) − 1 for more signed
    ones, else 0 and 2^b − 1):

        ∂q/∂x = ∂q/∂shift = 1 where lo ≤ u ≤ hi, else 0
        ∂q/∂α = c for signed bits; otherwise lo where u < lo, hi where u ≥ hi, else c − u
        α's is multiplied by 1/√(n·hi), with n elements of x

    α starts from the first batch, at 2·mean|x|/√hi (signed) or 4·mean|x|/√hi. The scale, a buffer that says whether it
    has started, and the shift travel in checkpoints.
    """

    shift: nn.Parameter | None
    started: Tensor

    def __init__(self, bits: int, signed: bool, learned: bool = True) -> None:
        super().__init__()
        self.bits, self.signed = bits, signed
        self.scale = nn.Parameter(torch.ones(1), requires_grad=learned)
        self.register_parameter("shift", None)
        self.register_buffer("started", torch.zeros(1, dtype=torch.bool))

    @property
    def lowest(self) -> int:
        """The lowest code."""
        if not self.signed:
            return 0
        return -1 if self.bits == 1 else -(2 ** (self.bits - 1))

    @property
    def highest(self) -> int:
        """The highest code."""
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
        quantized: Tensor = _Quantize.apply(x, self.scale, self.shift, self)
        return quantized

    def extra_repr(self) -> str:
        return f"bits={self.bits}, signed={self.signed}, codes={self.lowest}…{self.highest}"

    def check_started(self) -> None:
        """Raises TrainingError while no batch has set the scale."""
        if not self.started:
            raise TrainingError("a learned activation scale has not seen a batch; run at least one forward pass first")

    @torch.no_grad()
    def continue_from(self, other: LearnedScale) -> None:
        """Begin with the scale and the shift of ``other``, of an earlier stage, where it has such."""
        self.scale.copy_(other.scale)
        self.started.copy_(other.started)
        if self.shift is not None and other.shift is not None and self.shift.shape == other.shift.shape:
            self.shift.copy_(other.shift)

    def codes(self, shifted: Tensor) -> Tensor:
        """x + shift → codes as fp32, newly allocated."""
        raise NotImplementedError

    def values(self, codes: Tensor) -> Tensor:
        """Codes → what the forward pass goes on with."""
        return codes * self.step

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        factor = 2.0 if self.signed else 4.0
        # A batch of zeros, or one that has diverged: any positive scale, so that training ends by its own error.
        start = (factor * x.abs().mean() / math.sqrt(self.highest)).nan_to_num(1.0)
        self.scale.copy_(torch.where(start > 0, start, 1.0))
        self.started.fill_(True)


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor | None, quantizer: LearnedScale) -> Tensor:
        shifted = x if shift is None else x + shift
        codes = quantizer.codes(shifted)
        ctx.quantizer, ctx.shift_shape = quantizer, None if shift is None else shift.shape
        ctx.save_for_backward(shifted / quantizer.step, codes)
        return quantizer.values(codes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        u, codes = ctx.saved_tensors
        quantizer, gradient = ctx.quantizer, grads[0]
        lowest, highest = quantizer.lowest, quantizer.highest
        by_x = passed_within(gradient, u, lowest, highest)
        by_scale = by_shift = None
        if ctx.needs_input_grad[1]:
            slope = codes
            if not (quantizer.bits == 1 and quantizer.signed):
                slope = codes - passed_below(u, u, lowest, highest)
            by_scale = ((gradient * slope).sum() / math.sqrt(u.numel() * highest)).reshape(1)
        if ctx.needs_input_grad[2]:
            by_shift = by_x.sum().reshape(1)
            if ctx.shift_shape[0] != 1:
                by_shift = by_x.flatten(0, -2).sum(dim=0)
        return by_x, by_scale, by_shift, None
