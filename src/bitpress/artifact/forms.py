"""Quantized tensors as codes and scales in memory: what quantizers hand to the writer and the reader gives back.

Shapes: a tensor has [rows, cols] = [outputs, inputs]. Scales (and offsets) are float32 [1] for group "matrix", [rows]
for "row", [ceil(rows / group_size)] for "row_block", [rows, ceil(cols / group_size)] for "input". ``decode`` computes
in fp32 exactly as training does: one rounded product, then one rounded sum where there is an offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitpress.artifact.outliers import Outliers

FloatTensor: TypeAlias = NDArray[np.float32]
HalfTensor: TypeAlias = NDArray[np.float16]


@dataclass
class TernaryTensor:
    """value = scale·code with codes int8 [rows, cols] in {−1, 0, 1}; scale [1] or [rows]."""

    codes: NDArray[np.int8]
    scale: FloatTensor

    def decode(self) -> FloatTensor:
        """fp32 [rows, cols]; exact, because the product with −1, 0 or 1 never rounds."""
        return self.codes.astype(np.float32) * self.scale[:, None]


@dataclass
class UniformTensor:
    """value = scale·code + offset, or scale·(code − 2^(bits−1)) where ``offset`` is None (symmetric).

    codes uint8 [rows, cols] in [0, 2^bits), symmetric from 1; scale and offset by group (module docstring).
    """

    codes: NDArray[np.uint8]
    scale: FloatTensor
    offset: FloatTensor | None
    bits: int
    group: str
    group_size: int | None = None

    def decode(self) -> FloatTensor:
        """fp32 [rows, cols]."""
        scale = self._broadcast(self.scale)
        if self.offset is None:
            centred = self.codes.astype(np.float32) - np.float32(2 ** (self.bits - 1))
            return centred * scale
        return self.codes.astype(np.float32) * scale + self._broadcast(self.offset)

    def _broadcast(self, values: FloatTensor) -> NDArray[Any]:
        """[1, 1], [rows, 1] or [rows, cols]."""
        rows, cols = self.codes.shape
        if self.group == "input":
            return np.repeat(values, self.group_size or 1, axis=1)[:, :cols]
        if self.group == "row_block":
            return np.repeat(values, self.group_size or 1)[:rows, None]
        return values[:, None]


@dataclass
class CodebookTensor:
    """value = scale·table[code] with codes uint8 [rows, cols], table int8 [2^bits], scale [1] or [rows]; where there
    are ``outliers``, theirs, whatever the code."""

    codes: NDArray[np.uint8]
    table: NDArray[np.int8]
    scale: FloatTensor
    outliers: Outliers | None = None

    def decode(self) -> FloatTensor:
        """fp32 [rows, cols]."""
        values = self.table[self.codes].astype(np.float32) * self.scale[:, None]
        if self.outliers is not None:
            self.outliers.put(values)
        return values


@dataclass
class BinaryTensor:
    """value = scale·code with codes int8 [rows, cols] in {−1, +1}; scale [1] or [rows], float32 or float16.

    Of two terms value = scale[0]·code[0] + scale[1]·code[1]: codes [2, rows, cols], scale [2] or [2, rows].
    """

    codes: NDArray[np.int8]
    scale: FloatTensor | HalfTensor

    def decode(self) -> FloatTensor:
        """fp32 [rows, cols]; exact of one term, of two their sum is rounded once."""
        scale = self.scale.astype(np.float32)
        if self.codes.ndim == 2:
            return self.codes.astype(np.float32) * scale[:, None]
        first, second = self.codes.astype(np.float32) * scale.reshape(2, -1, 1)
        total: FloatTensor = first + second
        return total


QuantizedTensor: TypeAlias = TernaryTensor | UniformTensor | CodebookTensor | BinaryTensor
StoredTensor: TypeAlias = FloatTensor | HalfTensor | QuantizedTensor
