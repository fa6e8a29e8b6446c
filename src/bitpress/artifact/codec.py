"""Bit layouts of ternary codes, vectorised in numpy. docs/artifact.md shows both layouts on an example."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitpress.errors import ArtifactError

# Codes in one byte. 2 bits: 8/2 = 4. Trits: 3^5 = 243 ≤ 256 < 3^6, so 5 (1.6 bits a code; log2 3 = 1.585 is the limit).
CODES_PER_BYTE = {"2bit": 4, "trits": 5}
BITS = {"2bit": 2.0, "trits": 1.6}
MAX_TRIT_BYTE = 3**5 - 1

_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)  # largest byte: 2·(1+3+9+27+81) = 242, so uint8 arithmetic is exact
# Content is checked in blocks whose temporaries stay in a 256 KiB level-2 cache.
_BLOCK = 1 << 16


def row_bytes(cols: int, packing: str) -> int:
    """Bytes of one row of ``cols`` codes: every row starts on a byte boundary.

    Raises:
        ArtifactError: ``packing`` is neither "2bit" nor "trits".
    """
    return -(-cols // codes_per_byte(packing))


def codes_per_byte(packing: str) -> int:
    """4 for "2bit", 5 for "trits"; ArtifactError for anything else."""
    if packing not in CODES_PER_BYTE:
        raise ArtifactError(f"packing is {packing!r}; allowed are {sorted(CODES_PER_BYTE)}")
    return CODES_PER_BYTE[packing]


def pack_ternary(codes: NDArray[np.int8], packing: str) -> NDArray[np.uint8]:
    """Pack int8 codes [rows, cols] in {−1, 0, 1} into uint8 [rows, row_bytes(cols, packing)].

    "2bit":  code j of a row goes to bits 2(j mod 4), 2(j mod 4)+1 of byte j // 4, two's complement (−1 = 0b11).
    "trits": byte = Σ d_j·3^j over its five codes, d = code mod 3 (−1 → 2).
    The codes that fill up the last byte of a row are 0.

    Raises:
        ArtifactError: wrong dtype, number of dimensions or code values, or unknown packing.
    """
    per_byte = codes_per_byte(packing)
    if codes.dtype != np.int8 or codes.ndim != 2:
        raise ArtifactError(f"codes are {codes.dtype} of shape {list(codes.shape)}; int8 [rows, cols] is expected")
    if codes.size and (int(codes.min()) < -1 or int(codes.max()) > 1):
        raise ArtifactError(f"codes range from {codes.min()} to {codes.max()}; only −1, 0 and 1 are ternary")
    rows, cols = codes.shape
    width = row_bytes(cols, packing)
    if cols % per_byte:
        padded = np.zeros((rows, width * per_byte), np.int8)
        padded[:, :cols] = codes
    else:
        padded = np.ascontiguousarray(codes)
    digits = padded.reshape(rows, width, per_byte)
    packed = np.zeros((rows, width), np.uint8)
    if packing == "2bit":
        bits = digits.view(np.uint8) & 0b11
        for j in range(per_byte):
            packed |= bits[:, :, j] << np.uint8(2 * j)
    else:
        trits = np.where(digits < 0, np.int8(2), digits).view(np.uint8)
        for j in range(per_byte):
            packed += trits[:, :, j] * _POWERS[j]
    return packed


def unpack_ternary(packed: NDArray[np.uint8], cols: int, packing: str) -> NDArray[np.int8]:
    """Codes int8 [rows, cols] of packed uint8 [rows, row_bytes(cols, packing)]; inverse of `pack_ternary`.

    Invalid bytes are not looked for here: `check_packed` does that once, at load.

    Raises:
        ArtifactError: the row length does not fit ``cols``, or unknown packing.
    """
    width = row_bytes(cols, packing)
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != width:
        raise ArtifactError(
            f"packed codes are {packed.dtype} of shape {list(packed.shape)}; uint8 [rows, {width}] is expected"
        )
    codes = _TABLES[packing][packed].reshape(packed.shape[0], width * CODES_PER_BYTE[packing])
    return np.ascontiguousarray(codes[:, :cols])


def check_packed(packed: NDArray[np.uint8], cols: int, packing: str, tensor: str) -> None:
    """Every byte is one that `pack_ternary` writes: valid codes, zero padding.

    Args:
        packed: uint8 [rows, row_bytes(cols, packing)], C-contiguous.

    Raises:
        ArtifactError: names the tensor, the row and the byte.
    """
    flat = packed.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        if packing == "2bit":
            # 10 is the one invalid pair: high bit set, low bit clear.
            bad = ((block >> 1) & ~block & 0b01010101) != 0
        else:
            bad = block > MAX_TRIT_BYTE
        if bad.any():
            row, byte = divmod(start + int(np.flatnonzero(bad)[0]), packed.shape[1])
            allowed = (
                "each pair of bits must be 00, 01 or 11 (10 is no code)"
                if packing == "2bit"
                else f"a byte of five trits is at most {MAX_TRIT_BYTE}"
            )
            raise ArtifactError(f"row {row}, byte {byte} of the codes is {packed[row, byte]:#04x}; {allowed}", tensor)
    used = cols % CODES_PER_BYTE[packing]
    if used:
        limit = 4**used if packing == "2bit" else 3**used  # the unused codes are the high ones of the last byte
        late = np.flatnonzero(packed[:, -1] >= limit)
        if late.size:
            row = int(late[0])
            raise ArtifactError(
                f"row {row} ends in byte {packed[row, -1]:#04x}, whose padding is not zero; its last byte holds {used} "
                f"codes and must be below {limit}",
                tensor,
            )


def _table(packing: str) -> NDArray[np.int8]:
    """Codes of every byte: int8 [256, codes per byte]. Rows of bytes that `check_packed` refuses mean nothing."""
    byte = np.arange(256)[:, None]
    j = np.arange(CODES_PER_BYTE[packing])
    if packing == "2bit":
        return np.array([0, 1, 0, -1], np.int8)[byte >> (2 * j) & 3]
    return np.array([0, 1, -1], np.int8)[byte // 3**j % 3]


_TABLES = {packing: _table(packing) for packing in CODES_PER_BYTE}
