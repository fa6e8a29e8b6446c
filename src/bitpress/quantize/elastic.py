r"""Elastic binarization and its many-bit form: activations on a learned scale above a learned threshold.

Source: BiT (Liu et al. 2022, arXiv 2205.13016, §3.2; spec/bit.md A2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bitpress.errors import RecipeError
from bitpress.quantize.elementwise import signs
from bitpress.quantize.learned_scale import LearnedScale

ELASTIC_BITS = (1, 2, 4)
SCALES = ("learned", "static")
THRESHOLDS = ("channel", "scalar", "none")


class ElasticQuantizer(LearnedScale):
    r"""q(x) = α·c, with u = (x + shift) / α and the code c:

        1 bit, signed        c = +1 where x + shift ≥ 0, else −1
        1 bit, not signed    c = 1 where x + shift ≥ α/2, else 0
        b bits, signed       c = clamp(round(u), −2^(b−1), 2^(b−1) − 1)
        b bits, not signed   c = clamp(round(u), 0, 2^b − 1)

    Gradients and the start of α: :class:`LearnedScale`; the shift starts at 0. A tie of a bit is 1, as everywhere in
    bitpress; the released code rounds half to even, where u = ½ gives 0.

    Args:
        bits: 1, 2 or 4.
        signed: −1 and +1, or 0 and 1: for numbers that are never negative.
        channels: elements of the last dimension, for a shift of each ("channel"); unused with other thresholds.
        scale: "learned", or "static": as it started.
        threshold: what the shift is: one a "channel", one "scalar", or "none".

    Raises:
        RecipeError: an argument is none of the above.
    """

    def __init__(
        self,
        bits: int = 1,
        signed: bool = True,
        channels: int | None = None,
        scale: str = "learned",
        threshold: str = "none",
    ) -> None:
        for key, value, allowed in (
            ("bits", bits, ELASTIC_BITS),
            ("scale", scale, SCALES),
            ("threshold", threshold, THRESHOLDS),
        ):
            if value not in allowed:
                raise RecipeError(f"{key} is {value!r}; allowed: {', '.join(map(str, allowed))}")
        if threshold == "channel" and channels is None:
            raise RecipeError("threshold 'channel' needs the number of channels")
        super().__init__(bits, signed, scale == "learned")
        size = {"channel": channels, "scalar": 1, "none": None}[threshold]
        if size is not None:
            self.shift = nn.Parameter(torch.zeros(size))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes as int8 of x's shape: what the next forward pass multiplies by α.

        Raises:
            TrainingError: no batch has set the scale yet.
        """
        self.check_started()
        return self.codes(x if self.shift is None else x + self.shift).to(torch.int8)

    def codes(self, shifted: Tensor) -> Tensor:
        """x + shift → codes as fp32, newly allocated."""
        if self.bits > 1:
            return (shifted / self.step).round_().clamp_(self.lowest, self.highest)
        if self.signed:
            return signs(shifted)
        return (shifted >= self.step * 0.5).to(shifted.dtype)
