"""Codes as bit strings. Oracle: a slow loop that follows the definition of the layout bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitpress.artifact import ArtifactError, bit_row_bytes, pack_bits, unpack_bits
from bitpress.artifact.bitstring import CODE_BITS, check_bits

# Units of 1 byte hold 8/bits codes, those of 3 bits hold 8: all lengths around one and two of them.
COLUMNS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 37)


def slow_pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """The definition of docs/artifact.md, one bit at a time."""
    rows, cols = codes.shape
    packed = np.zeros((rows, (cols * bits + 7) // 8), np.uint8)
    for r in range(rows):
        for i in range(cols * bits):
            bit = int(codes[r, i // bits]) >> i % bits & 1
            packed[r, i // 8] |= bit << i % 8
    return packed


@given(data=st.data(), bits=st.sampled_from(CODE_BITS))
def test_pack_equals_the_definition_and_unpack_inverts_it(data: st.DataObject, bits: int) -> None:
    shapes = st.tuples(st.integers(0, 5), st.integers(0, 23))
    codes = data.draw(arrays(np.uint8, shapes, elements=st.integers(0, 2**bits - 1)))
    packed = pack_bits(codes, bits)
    np.testing.assert_array_equal(packed, slow_pack(codes, bits))
    unpacked = unpack_bits(packed, codes.shape[1], bits)
    assert unpacked.dtype == np.uint8
    assert unpacked.flags.c_contiguous
    np.testing.assert_array_equal(unpacked, codes)
    check_bits(packed, codes.shape[1], bits, "w")


@pytest.mark.parametrize("bits", CODE_BITS)
def test_pack_takes_strided_codes(bits: int) -> None:
    codes = (np.arange(7 * 40) * 11 % 2**bits).astype(np.uint8).reshape(7, 40)
    for view in (codes.T, codes[:, ::3], codes[::2]):
        np.testing.assert_array_equal(pack_bits(view, bits), slow_pack(view, bits))


def test_worked_examples_of_the_documentation() -> None:
    def packed(codes: list[int], bits: int) -> list[int]:
        return list(pack_bits(np.array([codes], np.uint8), bits)[0])

    assert packed([1, 15, 8], 4) == [0xF1, 0x08]
    assert packed([5, 0, 7, 2, 1], 3) == [0xC5, 0x15]
    assert packed([3, 0, 2, 1, 1], 2) == [0x63, 0x01]
    assert packed([1, 0, 0, 1], 1) == [0x09]
    assert packed([200, 7], 8) == [200, 7]


@pytest.mark.parametrize("bits", CODE_BITS)
@pytest.mark.parametrize("cols", COLUMNS)
def test_check_bits_accepts_exactly_what_pack_writes(bits: int, cols: int) -> None:
    """Oracle: unpack the bytes by the definition and pack them again."""
    random = np.random.default_rng(cols)
    width = bit_row_bytes(cols, bits)
    for last in range(256):
        packed = random.integers(0, 256, (3, width), np.uint8)
        packed[:, -1] = 0
        packed[1, -1] = last
        if np.array_equal(slow_pack(unpack_bits(packed, cols, bits), bits), packed):
            check_bits(packed, cols, bits, "w")
        else:
            with pytest.raises(ArtifactError, match=r"tensor 'w': row 1 ends in byte .* padding is not zero"):
                check_bits(packed, cols, bits, "w")


@given(data=st.data(), bits=st.sampled_from([2, 3, 4, 8]), cols=st.sampled_from(COLUMNS))
def test_the_first_zero_code_is_found(data: st.DataObject, bits: int, cols: int) -> None:
    """Few distinct values, so that zeros and codes with a single bit set are common. Oracle: numpy on the codes."""
    elements = st.sampled_from([0, 1, 2 ** (bits - 1), 2**bits - 1])
    codes = data.draw(arrays(np.uint8, (3, cols), elements=elements, fill=st.just(1)))
    zeros = np.argwhere(codes == 0)
    packed = slow_pack(codes, bits)
    if len(zeros) == 0:
        check_bits(packed, cols, bits, "w", zero_is_a_code=False)
    else:
        row, column = zeros[0]
        with pytest.raises(ArtifactError, match=f"the code in row {row}, column {column} is 0"):
            check_bits(packed, cols, bits, "w", zero_is_a_code=False)


@pytest.mark.parametrize("at", [0, 65535, 65536, 199_999])
def test_a_zero_code_is_found_in_any_block(at: int) -> None:
    packed = np.full((200, 1000), 0x11, np.uint8)
    packed.reshape(-1)[at] = 0x10
    with pytest.raises(ArtifactError, match=f"row {at // 1000}, column {2 * (at % 1000)} is 0"):
        check_bits(packed, 2000, 4, "w", zero_is_a_code=False)


def test_pack_and_unpack_refuse_other_types_shapes_and_codes() -> None:
    with pytest.raises(ArtifactError, match="int64"):
        pack_bits(np.zeros((2, 2), np.int64), 4)
    with pytest.raises(ArtifactError, match=r"\[4\]"):
        pack_bits(np.zeros(4, np.uint8), 4)
    with pytest.raises(ArtifactError, match="codes go up to 8; 3 bits hold 0 to 7"):
        pack_bits(np.array([[8, 0]], np.uint8), 3)
    with pytest.raises(ArtifactError, match=r"\[rows, 2\]"):
        unpack_bits(np.zeros((2, 3), np.uint8), 5, 3)
    with pytest.raises(ArtifactError, match="bits is 5; codes have 1, 2, 3, 4, 8 bits"):
        bit_row_bytes(8, 5)
