"""Unsigned codes of 1, 2, 3, 4 or 8 bits as a bit string a row, vectorised in numpy. docs/artifact.md has an example.

Code j of a row occupies the bits [j·bits, (j+1)·bits) of the row, lowest bit first; every row starts on a byte; the
bits that fill up its last byte are 0. So no code crosses from one "unit" to the next: a unit is one byte, or, for 3
bits, the three bytes that 8 codes fill. All work is done on units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitpress.errors import ArtifactError

CODE_BITS = (1, 2, 3, 4, 8)
# Content is checked in blocks of rows whose temporaries stay in a 512 KiB level-2 cache: 64 KiB of packed codes, at 3
# bits another 1.33 times as much in each of the units and their folded copy.
_BLOCK = 1 << 16


def bit_row_bytes(cols: int, bits: int) -> int:
    """Bytes of one row of ``cols`` codes.

    Raises:
        ArtifactError: ``bits`` is none of 1, 2, 3, 4, 8.
    """
    _check_bits(bits)
    return -(-cols * bits // 8)


def pack_bits(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes uint8 [rows, cols] in [0, 2^bits) → uint8 [rows, bit_row_bytes(cols, bits)].

    Raises:
        ArtifactError: wrong dtype, number of dimensions or code values, or unknown bits.
    """
    width = bit_row_bytes(codes.shape[-1] if codes.ndim else 0, bits)
    if codes.dtype != np.uint8 or codes.ndim != 2:
        raise ArtifactError(f"codes are {codes.dtype} of shape {list(codes.shape)}; uint8 [rows, cols] is expected")
    if codes.size and int(codes.max()) >> bits:
        raise ArtifactError(f"codes go up to {codes.max()}; {bits} bits hold 0 to {2**bits - 1}")
    rows, cols = codes.shape
    per_unit, unit_bytes = _unit(bits)
    units = -(-cols // per_unit)
    padded = np.zeros((rows, units * per_unit), np.uint8)
    padded[:, :cols] = codes
    fields = padded.reshape(rows, units, per_unit)
    packed = np.zeros((rows, units), np.uint8 if unit_bytes == 1 else np.dtype("<u4"))
    for j in range(per_unit):
        packed |= fields[:, :, j].astype(packed.dtype) << packed.dtype.type(bits * j)
    if unit_bytes == 1:
        return packed
    # The low three bytes of each little-endian word.
    return packed.view(np.uint8).reshape(rows, units, 4)[:, :, :3].reshape(rows, 3 * units)[:, :width].copy()


def unpack_bits(packed: NDArray[np.uint8], cols: int, bits: int) -> NDArray[np.uint8]:
    """Codes uint8 [rows, cols] of packed uint8 [rows, bit_row_bytes(cols, bits)]; inverse of `pack_bits`.

    Raises:
        ArtifactError: the row length does not fit ``cols``, or unknown bits.
    """
    width = bit_row_bytes(cols, bits)
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != width:
        raise ArtifactError(
            f"packed codes are {packed.dtype} of shape {list(packed.shape)}; uint8 [rows, {width}] is expected"
        )
    per_unit, _ = _unit(bits)
    units = _units(packed, bits)
    codes = np.empty((*units.shape, per_unit), np.uint8)
    for j in range(per_unit):
        codes[:, :, j] = units >> units.dtype.type(bits * j) & units.dtype.type(2**bits - 1)
    return np.ascontiguousarray(codes.reshape(len(packed), units.shape[1] * per_unit)[:, :cols])


def check_bits(packed: NDArray[np.uint8], cols: int, bits: int, tensor: str, zero_is_a_code: bool = True) -> None:
    """Every row is one that `pack_bits` writes: zero padding; and no code is 0 where ``zero_is_a_code`` is False.

    Args:
        packed: uint8 [rows, bit_row_bytes(cols, bits)].

    Raises:
        ArtifactError: names the tensor, the row, and the byte or column.
    """
    used = cols * bits % 8
    if used:
        late = np.flatnonzero(packed[:, -1] >> np.uint8(used))
        if late.size:
            row = int(late[0])
            raise ArtifactError(
                f"row {row} ends in byte {packed[row, -1]:#04x}, whose padding is not zero; {used} bits of it hold "
                f"codes, so it must be below {1 << used}",
                tensor,
            )
    if zero_is_a_code:
        return
    rows = max(1, _BLOCK // max(1, packed.shape[1]))
    for start in range(0, len(packed), rows):
        found = _first_zero(packed[start : start + rows], cols, bits)
        if found is not None:
            row, column = found
            raise ArtifactError(
                f"the code in row {start + row}, column {column} is 0; symmetric codes of {bits} bits run from 1 to "
                f"{2**bits - 1}, with {2 ** (bits - 1)} for the value 0",
                tensor,
            )


def _first_zero(packed: NDArray[np.uint8], cols: int, bits: int) -> tuple[int, int] | None:
    """Row and column of the first code that is 0, without unpacking."""
    per_unit, _ = _unit(bits)
    units = _units(packed, bits)
    # Bit bits·j of ``folded`` becomes the OR of all bits of code j: 0 exactly where the code is.
    if bits == 8:
        folded = (units != 0).view(np.uint8)
    else:
        folded = units | units >> units.dtype.type(1)
        if bits > 2:  # the same once more: two bits further at 4 bits, the third bit at 3
            folded |= (folded if bits == 4 else units) >> units.dtype.type(2)
    lowest = [1 << bits * j for j in range(per_unit)]
    expected = np.full(units.shape[1], sum(lowest), units.dtype)
    expected[-1] = sum(lowest[: cols - (units.shape[1] - 1) * per_unit])  # without the padding of the last unit
    bad = (folded & expected) != expected
    if not bad.any():
        return None
    row, unit = divmod(int(np.flatnonzero(bad)[0]), units.shape[1])
    absent = ~int(folded[row, unit]) & int(expected[unit])
    lowest_absent = (absent & -absent).bit_length() - 1
    return row, unit * per_unit + lowest_absent // bits


def _units(packed: NDArray[np.uint8], bits: int) -> NDArray[Any]:
    """[rows, units] of unsigned integers that hold whole codes: the bytes themselves, or 24 bits in uint32."""
    if bits != 3:
        return packed
    rows, width = packed.shape
    padded = np.zeros((rows, -(-width // 3), 3), np.uint8)
    padded.reshape(rows, padded.shape[1] * 3)[:, :width] = packed
    wide = padded.astype(np.uint32)
    units: NDArray[Any] = wide[:, :, 0] | wide[:, :, 1] << np.uint32(8) | wide[:, :, 2] << np.uint32(16)
    return units


def _unit(bits: int) -> tuple[int, int]:
    """Codes and bytes of a unit."""
    return (8, 3) if bits == 3 else (8 // bits, 1)


def _check_bits(bits: int) -> None:
    if bits not in CODE_BITS:
        raise ArtifactError(f"bits is {bits!r}; codes have {', '.join(map(str, CODE_BITS))} bits")
