"""Ternary codecs. Oracle: a slow loop that follows the definition of the layout bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitpress.artifact import ArtifactError, Outliers, TernaryTensor, pack_ternary, row_bytes, unpack_ternary
from bitpress.artifact.codec import check_packed

PACKINGS = ["2bit", "trits"]


def slow_pack(codes: np.ndarray, packing: str) -> np.ndarray:
    """The definition of docs/artifact.md, one code at a time."""
    per_byte = 4 if packing == "2bit" else 5
    rows, cols = codes.shape
    packed = np.zeros((rows, (cols + per_byte - 1) // per_byte), np.uint8)
    for r in range(rows):
        for j in range(cols):
            code = int(codes[r, j])
            if packing == "2bit":
                packed[r, j // 4] += {0: 0b00, 1: 0b01, -1: 0b11}[code] << 2 * (j % 4)
            else:
                packed[r, j // 5] += (code % 3) * 3 ** (j % 5)
    return packed


@given(
    codes=arrays(np.int8, st.tuples(st.integers(0, 5), st.integers(0, 23)), elements=st.integers(-1, 1)),
    packing=st.sampled_from(PACKINGS),
)
def test_pack_equals_the_definition_and_unpack_inverts_it(codes: np.ndarray, packing: str) -> None:
    packed = pack_ternary(codes, packing)
    np.testing.assert_array_equal(packed, slow_pack(codes, packing))
    unpacked = unpack_ternary(packed, codes.shape[1], packing)
    assert unpacked.dtype == np.int8
    assert unpacked.flags.c_contiguous
    np.testing.assert_array_equal(unpacked, codes)
    check_packed(packed, codes.shape[1], packing, "w")


@pytest.mark.parametrize("packing", PACKINGS)
def test_pack_takes_strided_codes(packing: str) -> None:
    codes = (np.arange(7 * 40) % 3).astype(np.int8).reshape(7, 40) - np.int8(1)
    for view in (codes.T, codes[:, ::3], codes[::2]):
        np.testing.assert_array_equal(pack_ternary(view, packing), slow_pack(view, packing))


def test_worked_example_of_outliers() -> None:
    """docs/artifact.md, Outliers."""
    positions = np.array([2, 700, 2 * 768 + 31])
    outliers = Outliers.at(positions, np.array([0.5, -0.25, 1.5], np.float32), (3, 768))
    assert outliers is not None
    assert outliers.counts.tolist() == [2, 0, 1]
    assert outliers.columns.tolist() == [2, 700, 31]
    dense = np.zeros((3, 768), np.float32)
    outliers.put(dense)
    assert np.flatnonzero(dense).tolist() == positions.tolist()
    assert (dense[0, 2], dense[0, 700], dense[2, 31]) == (0.5, -0.25, 1.5)
    assert Outliers.at(positions[:0], outliers.values[:0], (3, 768)) is None
    with pytest.raises(ArtifactError, match="row 1 has 65536 outliers; at most 65535 fit"):
        Outliers.at(np.arange(65536, 131072), np.ones(65536, np.float32), (2, 65536))


def test_worked_examples_of_the_documentation() -> None:
    codes = np.array([[1, 0, -1, 1, -1, 1]], np.int8)
    # 2bit: pairs from low to high 01 00 11 01 | 11 01 00 00
    assert pack_ternary(codes, "2bit").tolist() == [[0b01_11_00_01, 0b00_00_01_11]] == [[0x71, 0x07]]
    # trits: 1·1 + 0·3 + 2·9 + 1·27 + 2·81 = 208 | 1·1 = 1
    assert pack_ternary(codes, "trits").tolist() == [[208, 1]]


@pytest.mark.parametrize(("packing", "per_byte"), [("2bit", 4), ("trits", 5)])
def test_rows_start_on_a_byte_boundary(packing: str, per_byte: int) -> None:
    expected = {0: 0, 1: 1, per_byte - 1: 1, per_byte: 1, per_byte + 1: 2, 10 * per_byte: 10, 10 * per_byte + 1: 11}
    assert {cols: row_bytes(cols, packing) for cols in expected} == expected


@pytest.mark.parametrize(("packing", "cols"), [(p, cols) for p in PACKINGS for cols in (1, 2, 3, 4, 5, 8, 10)])
def test_check_packed_accepts_exactly_the_bytes_that_pack_writes(packing: str, cols: int) -> None:
    """Oracle: all codes of one row, enumerated (the last byte of the row alone decides beyond one byte)."""
    per_byte = 4 if packing == "2bit" else 5
    tail = cols % per_byte or per_byte
    grid = np.stack(np.meshgrid(*[[-1, 0, 1]] * tail), -1).reshape(-1, tail).astype(np.int8)
    written = set(slow_pack(grid, packing)[:, 0].tolist())
    for byte in range(256):
        packed = np.zeros((3, row_bytes(cols, packing)), np.uint8)
        packed[1, -1] = byte
        if byte in written:
            check_packed(packed, cols, packing, "w")
        else:
            with pytest.raises(ArtifactError, match=r"tensor 'w': row 1"):
                check_packed(packed, cols, packing, "w")


def test_check_packed_finds_a_bad_byte_in_any_block() -> None:
    for at in (0, 65535, 65536, 199_999):
        packed = np.zeros((200, 1000), np.uint8)
        packed.reshape(-1)[at] = 0b10
        with pytest.raises(ArtifactError, match=f"row {at // 1000}, byte {at % 1000} "):
            check_packed(packed, 4000, "2bit", "w")


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("bad", [-2, 2, 127, -128])
def test_pack_refuses_codes_that_are_not_ternary(packing: str, bad: int) -> None:
    with pytest.raises(ArtifactError, match="only −1, 0 and 1"):
        pack_ternary(np.array([[0, bad, 1]], np.int8), packing)


def test_pack_and_unpack_refuse_other_types_and_shapes() -> None:
    with pytest.raises(ArtifactError, match="int64"):
        pack_ternary(np.zeros((2, 2), np.int64), "2bit")
    with pytest.raises(ArtifactError, match=r"\[4\]"):
        pack_ternary(np.zeros(4, np.int8), "2bit")
    with pytest.raises(ArtifactError, match=r"\[rows, 2\]"):
        unpack_ternary(np.zeros((2, 3), np.uint8), 5, "2bit")
    with pytest.raises(ArtifactError, match="'3bit'"):
        row_bytes(8, "3bit")


def test_decode_is_scale_times_code() -> None:
    codes = np.array([[1, 0, -1], [0, -1, 1]], np.int8)
    matrix = TernaryTensor(codes, np.array([0.3], np.float32)).decode()
    rows = TernaryTensor(codes, np.array([0.3, 7.0], np.float32)).decode()
    third = np.float32(0.3)
    assert matrix.dtype == rows.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.array([[third, 0, -third], [0, -third, third]], np.float32))
    np.testing.assert_array_equal(rows, np.array([[third, 0, -third], [0, -7, 7]], np.float32))
