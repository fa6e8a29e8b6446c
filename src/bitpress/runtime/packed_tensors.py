"""Packed matrices on their way into the engine: from a read artifact, as the C ABI takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitpress.errors import EngineError
from bitpress.runtime import native
from bitpress.runtime.native import array, choice

if TYPE_CHECKING:
    from bitpress.artifact.outliers import Outliers
    from bitpress.artifact.reader import Artifact
    from bitpress.artifact.schema import TensorSpec

Floats = NDArray[np.float32]

# The enums of bitpress.h.
_SCHEMES = {"ternary": 0, "uniform": 1, "codebook": 2, "binary": 3}
_PACKINGS = {"bits": 0, "trits": 1}


@dataclass(frozen=True)
class PackedTensor:
    """A matrix [rows, cols] as artifacts store it (docs/artifact.md): ``codes`` uint8 [rows, row_bytes], or where a
    weight is the sum of two binary terms [2, rows, row_bytes].

    ``scheme``    ``bits``      value
    "ternary"     2             scale·code, code in {−1, 0, 1}; ``packing`` "bits" or "trits"
    "uniform"     2, 3, 4, 8    scale·code + offset, or, where ``offset`` is None, scale·(code − 2^(bits−1))
    "codebook"    2, 3, 4       scale·table[code], ``table`` int8 [2^bits], but of ``outliers``, whose values these are
    "binary"      1             scale where the bit is 1, −scale where it is 0

    ``scale`` and ``offset``, float32, are shared by blocks of ``group_rows`` × ``group_cols`` weights, None for all
    rows or columns: [ceil(rows / group_rows), ceil(cols / group_cols)], of two terms with a dimension of 2 in
    front, or the same numbers in one dimension.
    """

    scheme: str
    bits: int
    codes: NDArray[np.uint8]
    cols: int
    scale: Floats
    offset: Floats | None = None
    table: NDArray[np.int8] | None = None
    packing: str = "bits"
    group_rows: int | None = None
    group_cols: int | None = None
    outliers: Outliers | None = None


def packed_tensor(artifact: Artifact, name: str, spec: TensorSpec) -> PackedTensor:
    """A packed tensor of a read artifact."""
    if spec.scheme not in _SCHEMES:
        raise EngineError(
            f"tensor {name!r}: the engine does not run scheme {spec.scheme!r}, only {', '.join(_SCHEMES)}"
        )
    _, cols = spec.shape
    group_rows = {"matrix": None, "row_block": spec.group_size}.get(spec.group or "", 1)
    return PackedTensor(
        scheme=spec.scheme,
        bits=2 if spec.scheme == "ternary" else spec.code_bits,
        codes=artifact.tensors[f"{name}.codes"],
        cols=cols,
        scale=artifact.tensors[f"{name}.scale"].astype(np.float32, copy=False),
        offset=artifact.tensors.get(f"{name}.offset"),
        table=artifact.tensors.get(f"{name}.table"),
        outliers=artifact.outliers(name),
        packing="trits" if spec.packing == "trits" else "bits",
        group_rows=group_rows,
        group_cols=min(spec.group_size or cols, cols) if spec.group == "input" else None,
    )


def to_native(name: str, tensor: PackedTensor) -> tuple[native.Packed, tuple[NDArray[Any], ...]]:
    """bp_packed of the tensor ``name``, and the arrays that it points into.

    Raises:
        EngineError: what the library could not see: arrays of another type or shape, a group that is no number.
    """
    where = f"tensor {name!r}"
    scheme = choice(f"{where}: scheme", tensor.scheme, _SCHEMES)
    packing = choice(f"{where}: packing", tensor.packing, _PACKINGS)
    codes, scale = array(name, tensor.codes, np.uint8), array(name, tensor.scale, np.float32)
    offset = None if tensor.offset is None else array(name, tensor.offset, np.float32)
    table = None if tensor.table is None else array(name, tensor.table, np.int8)
    outliers = None if tensor.outliers is None else _outlier_arrays(name, tensor)
    row_bytes = -(-tensor.cols // 5) if tensor.packing == "trits" else -(-tensor.cols * tensor.bits // 8)
    # The library cannot see where the array ends.
    if tensor.cols < 1 or not 1 <= tensor.bits <= 8 or codes.ndim not in (2, 3) or codes.shape[-1] != row_bytes:
        raise EngineError(
            f"{where}: codes {list(codes.shape)}, expected [rows, {row_bytes}] for {tensor.cols} columns of "
            f"{tensor.bits} bits in packing {tensor.packing!r}, or two terms of that"
        )
    terms, rows = (1, *codes.shape)[-3:-1]
    groups = (tensor.group_rows, tensor.group_cols)
    if any(size is not None and not 1 <= size < 2**32 for size in groups):  # ctypes would wrap around
        raise EngineError(f"{where}: groups of {groups[0]} rows x {groups[1]} columns, allowed are 1 and above")
    packed = native.Packed(
        *(scheme, tensor.bits, packing, terms, rows, tensor.cols),
        *(size or 0 for size in groups),
        *(codes.ctypes.data, scale.ctypes.data, scale.size),
        *((None, 0) if offset is None else (offset.ctypes.data, offset.size)),
        *((None, 0) if table is None else (table.ctypes.data, table.size)),
        *((None, None, None, 0) if outliers is None else (*(x.ctypes.data for x in outliers), outliers[-1].size)),
    )
    kept = (codes, scale, offset, table, *(outliers or ()))
    return packed, tuple(each for each in kept if each is not None)


def _outlier_arrays(name: str, tensor: PackedTensor) -> tuple[NDArray[Any], ...]:
    """Counts, columns and values; the library cannot see where they end."""
    assert tensor.outliers is not None, "the caller asked"
    counts = array(name, tensor.outliers.counts, np.uint16)
    columns = array(name, tensor.outliers.columns, np.uint16)
    values = array(name, tensor.outliers.values, np.float32)
    rows = tensor.codes.shape[-2] if tensor.codes.ndim > 1 else 0
    if counts.shape != (rows,) or columns.shape != values.shape or values.ndim != 1:
        raise EngineError(
            f"tensor {name!r}: outlier counts {list(counts.shape)}, columns {list(columns.shape)} and values "
            f"{list(values.shape)}, expected [{rows}], and twice the number of outliers"
        )
    return counts, columns, values
