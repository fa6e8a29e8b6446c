r"""Activations of few bits on a learned step, computed as the engine computes a static range: BinaryBERT's 4-bit
activations (Bai et al. 2021, arXiv 2012.15701, §4; spec/bit.md B).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitpress.errors import RecipeError
from bitpress.quantize.learned_scale import LearnedScale


class LearnedRangeQuantizer(LearnedScale):
    r"""q(x) = α·k + o with the codes of a static range (:class:`ActivationQuantizer`), whose scale α is learned:

        signed        o = −2^(b−1)·α
        not signed    o = 0
        k = clamp(round((x − o) / α), 0, 2^b − 1)

    Gradients and the start of α: :class:`LearnedScale`, whose code c is k − 2^(b−1) where signed, else k.

    Args:
        bits: 4 or 8.
        signed: False for numbers that are never negative.

    Raises:
        RecipeError: bits are neither.
    """

    def __init__(self, bits: int = 4, signed: bool = True) -> None:
        if bits not in (4, 8):
            raise RecipeError(f"bits is {bits!r}; allowed: 4, 8")
        super().__init__(bits, signed)

    @property
    def offset(self) -> Tensor:
        """o, a scalar: exact, a power of two times α."""
        return self.step * float(self.lowest)

    @torch.no_grad()
    def encode(self, x: Tensor, kind: str = "rows", mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(k uint8 of x's shape, α, o): what the next forward pass decodes. ``kind`` and ``mask`` have no effect.

        Raises:
            TrainingError: no batch has set the scale yet.
        """
        self.check_started()
        return (self.codes(x) - self.lowest).to(torch.uint8), self.step, self.offset

    def static_range(self, kind: str = "rows") -> tuple[float, float]:
        """(α, o), each exactly an fp32 number.

        Raises:
            TrainingError: no batch has set the scale yet.
        """
        self.check_started()
        return float(self.step), float(self.offset)

    def codes(self, shifted: Tensor) -> Tensor:
        """x → c as fp32, newly allocated."""
        steps = (shifted - self.offset).div_(self.step).round_()
        return steps.clamp_(0, self.highest - self.lowest).add_(self.lowest)

    def values(self, codes: Tensor) -> Tensor:
        """α·k + o, two rounded operations."""
        return (codes - self.lowest).mul_(self.step).add_(self.offset)
