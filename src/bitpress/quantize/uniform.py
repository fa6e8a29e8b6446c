"""Uniform activations of 8 or 4 bits: x̂ = scale·code + offset with codes from 0 (TernaryBERT §3.2; ranges:
docs/numerics.md).

Training, codec and kernels compute exactly these formulas in fp32: IEEE division, round half to even, a multiplication
and then an addition.

Shapes: B texts, T tokens (padded), H features, h heads, d features of a head. Which elements share a range follows
from the ``kind`` of the activation:

    rows           [B, T, H] or [B, H]   one token: the last dimension
    head_rows      [B, h, T, d]          one token of one head: the last dimension
    head_block     [B, h, T, d]          the real tokens of one text and head. In P·V the sum runs over tokens, so a
                                         range per token could not leave the integer sum
    probabilities  [B, h, T, T]          one query: the last dimension; the lower end is 0, so that a padded key, whose
                                         probability is exactly 0, keeps it
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitpress.errors import RecipeError, TrainingError

RANGES = ("token", "static", "tensor")
KINDS = ("rows", "head_rows", "head_block", "probabilities")
ACTIVATION_BITS = (8, 4)


class ActivationQuantizer(nn.Module):
    r"""Min–max quantization with a straight-through gradient.

    With x' = clamp(x, −c, c) where a clip c is given (never for probabilities), over one group of x', and h = 127 for 8
    bits, 7 for 4:

        asymmetric     lo = min x', hi = max x',  scale = (hi − lo) / (2h + 1),  offset = lo
                       code = clamp(round((x' − lo) / scale), 0, 2h + 1)
        symmetric      m = max |x'|,  scale = m / h,  offset = −(h + 1)·scale (exact: a power of two)
                       code = clamp(round(x' / scale), −h, h) + h + 1
        probabilities  scale = max x / (2h + 1) (asymmetric) or max x / h (symmetric),  offset = 0
                       code = clamp(round(x / scale), 0, 2h + 1 or h)

        q(x) = scale·code + offset

        ∂q/∂x = 1,  and 0 where |x| ≥ c (inclusive, on the unclipped x). Ranges carry no gradient.

    Where scale is not above 0 (a constant group, or underflow) it is 1, and all codes come out as the lowest
    (symmetric: h + 1): a constant row keeps its value and a zero row stays zero.

    Args:
        bits: 8 or 4.
        symmetric: which formula.
        range: "token", the group of the kind (module docstring), so that a text's codes depend on nothing but the
            text; "static", one running range for everything; "tensor", min and max of the whole tensor, padding
            included, as in the released code: then a text's codes depend on its batch.
        clip: c > 0, or None for no clipping. The TernaryBERT release has 2.5.
        momentum: static only; running ← momentum·running + (1 − momentum)·batch, over the real tokens of the batch, in
            training mode; the first batch sets the range. Values outside the range saturate, their gradient does not.

    The static range lives in the buffers ``running_min`` and ``running_max`` (fp32 scalars, +inf and −inf until the
    first batch), so it travels in checkpoints; the other ranges have no buffers.

    Raises:
        RecipeError: an argument is none of the above.
        TrainingError: a static range is needed before any batch has set it.

    Source: TernaryBERT §3.2 (asymmetric; its released code is symmetric with range "tensor"); the static range is the
    running average of Jacob et al. 2018 (arXiv 1712.05877, §3.1).
    """

    running_min: Tensor
    running_max: Tensor

    def __init__(
        self,
        bits: int = 8,
        symmetric: bool = False,
        range: str = "token",
        clip: float | None = None,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        if bits not in ACTIVATION_BITS:
            raise RecipeError(f"bits is {bits!r}; allowed: {', '.join(map(str, ACTIVATION_BITS))}")
        if range not in RANGES:
            raise RecipeError(f"range is {range!r}; allowed: {', '.join(RANGES)}")
        if clip is not None and not clip > 0:
            raise RecipeError(f"clip is {clip!r}; allowed: a number above 0, or null for no clipping")
        if not 0 <= momentum < 1:
            raise RecipeError(f"momentum is {momentum!r}; allowed: at least 0 and below 1")
        self.bits = bits
        self.symmetric = symmetric
        self.range = range
        self.clip = clip
        self.momentum = momentum
        if range == "static":
            self.register_buffer("running_min", torch.tensor(math.inf))
            self.register_buffer("running_max", torch.tensor(-math.inf))

    def forward(self, x: Tensor, kind: str, mask: Tensor | None = None) -> Tensor:
        """q(x), equal bit for bit to ``decode(*encode(x, kind, mask))``.

        Args:
            x: fp32, of the shape of its kind (module docstring).
            kind: "rows", "head_rows", "head_block" or "probabilities".
            mask: bool [B, T], True at real tokens; None: all are real. Padded tokens never influence a real one's
                result, nor the running range; their own result is finite and otherwise means nothing.
        """
        x = self._clipped(x, kind)
        if self.range == "static" and self.training:
            self._observe(x, kind, mask)
        quantized: Tensor = _StraightThrough.apply(x, self, kind, mask)
        return quantized

    @torch.no_grad()
    def encode(self, x: Tensor, kind: str, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(codes uint8 of x's shape, scale, offset), the latter fp32 and broadcastable. Arguments as ``forward``."""
        x = self._clipped(x, kind)
        scale, offset = self._scale_offset(*self._range(x, kind, mask), kind)
        return self._codes(x, scale, offset, kind).to(torch.uint8), scale, offset

    @staticmethod
    def decode(codes: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """scale·code + offset, fp32 of the shape of codes."""
        return _affine_(codes.to(torch.float32, copy=True), scale, offset)

    def static_range(self, kind: str) -> tuple[float, float]:
        """(scale, offset) of a static range, each exactly an fp32 number.

        Raises:
            TrainingError: no batch has set the range yet.
        """
        scale, offset = self._scale_offset(*self._running(), kind)
        return float(scale), float(offset)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, symmetric={self.symmetric}, range={self.range}, clip={self.clip}"

    def _clipped(self, x: Tensor, kind: str) -> Tensor:
        """x', by ``hardtanh``: its gradient is 0 on the bounds too, where that of ``clamp`` is 1."""
        return x if self.clip is None or kind == "probabilities" else F.hardtanh(x, -self.clip, self.clip)

    def _range(self, x: Tensor, kind: str, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Lower and upper end of every group, broadcastable to x."""
        if self.range == "static":
            return self._running()
        low, high = self._row_range(x, kind)
        if self.range == "tensor":
            return low.amin(), high.amax()
        if kind != "head_block":
            return low, high
        low, high = _real_only(low, high, _row_mask(x, kind, mask))
        low, high = low.amin(dim=2, keepdim=True), high.amax(dim=2, keepdim=True)
        no_real_token = low > high
        return low.masked_fill(no_real_token, 0.0), high.masked_fill(no_real_token, 0.0)

    def _row_range(self, x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """Min and max of x over the last dimension, kept as size 1; probabilities begin at 0."""
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
        high = x.amax(dim=-1, keepdim=True)
        if kind == "probabilities":
            return torch.zeros_like(high), high
        return x.amin(dim=-1, keepdim=True), high

    def _running(self) -> tuple[Tensor, Tensor]:
        if self.range != "static":
            raise ValueError(f"the range is {self.range!r}, not static")
        if torch.isinf(self.running_min):
            raise TrainingError(
                "a static activation range has not seen a batch; run at least one forward pass in training mode first, "
                "or use range: token"
            )
        return self.running_min, self.running_max

    @torch.no_grad()
    def _observe(self, x: Tensor, kind: str, mask: Tensor | None) -> None:
        """Move the running range towards that of the real tokens of x."""
        low, high = _real_only(*self._row_range(x, kind), _row_mask(x, kind, mask))
        low, high = low.amin(), high.amax()
        if low > high:  # nothing but padding
            return
        if not torch.isinf(self.running_min):
            low = self.momentum * self.running_min + (1 - self.momentum) * low
            high = self.momentum * self.running_max + (1 - self.momentum) * high
        self.running_min.copy_(low)
        self.running_max.copy_(high)

    @property
    def highest(self) -> int:
        """The largest code, or of a symmetric range the largest distance of a code from the middle one."""
        return 2 ** (self.bits - 1) - 1 if self.symmetric else 2**self.bits - 1

    def _scale_offset(self, low: Tensor, high: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        divisor = _divisor(self.highest, high)
        if kind == "probabilities":
            scale = high / divisor
        elif self.symmetric:
            scale = torch.maximum(-low, high) / divisor
        else:
            scale = (high - low) / divisor
        scale = torch.where(scale > 0, scale, 1.0)
        if kind == "probabilities":
            return scale, torch.zeros_like(scale)
        # + 0 turns an offset of −0 into +0: with −0, a code computed as −0 would decode to another zero than code 0.
        return scale, -(self.highest + 1) * scale if self.symmetric else low + 0.0

    def _codes(self, x: Tensor, scale: Tensor, offset: Tensor, kind: str) -> Tensor:
        """Codes as fp32 of x's shape, newly allocated. Every step but the first works in place."""
        if kind == "probabilities":
            return (x / scale).round_().clamp_(0, self.highest)
        if self.symmetric:
            return (x / scale).round_().clamp_(-self.highest, self.highest).add_(self.highest + 1)
        return (x - offset).div_(scale).round_().clamp_(0, self.highest)


class _StraightThrough(torch.autograd.Function):
    """Forward scale·code + offset, backward the identity. Keeps nothing for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, quantizer: ActivationQuantizer, kind: str, mask: Tensor | None) -> Tensor:
        scale, offset = quantizer._scale_offset(*quantizer._range(x, kind, mask), kind)
        # Adding the zero offset of probabilities changes no bit of a number ≥ 0: that pass is left out.
        return _affine_(quantizer._codes(x, scale, offset, kind), scale, None if kind == "probabilities" else offset)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return grads[0], None, None, None


def _affine_(codes: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    """scale·code + offset in place on codes: two rounded operations, never a fused one."""
    codes.mul_(scale)
    return codes if offset is None else codes.add_(offset)


def _row_mask(x: Tensor, kind: str, mask: Tensor | None) -> Tensor | None:
    """mask bool [B, T] → broadcastable to the row ranges of x. Rows [B, H], one vector a text, are all real."""
    if mask is None or (kind == "rows" and x.dim() == 2):
        return None
    mask = mask.to(torch.bool)
    return mask[:, :, None] if kind == "rows" else mask[:, None, :, None]


def _real_only(low: Tensor, high: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Ranges with the padded rows' made neutral for the min and max to come."""
    if mask is None:
        return low, high
    return low.masked_fill(~mask, math.inf), high.masked_fill(~mask, -math.inf)


def _divisor(number: int, like: Tensor) -> Tensor:
    """A tensor on the device of ``like``: by a Python number, torch's CUDA kernel multiplies with the reciprocal."""
    return torch.full((), float(number), device=like.device)
