// The canonical packing of ternary codes in artifacts (docs/artifact.md): checking and unpacking.
//
// 2 bits: code j of a row in bits 2(j % 4) of byte j / 4, two's complement: 00 = 0, 01 = +1, 11 = -1, 10 invalid.
// Trits: five codes a byte, digit d = code mod 3 (0, 1, 2 for 0, +1, -1), byte = sum of d_j 3^j, at most 242.
// Every row starts on a byte; bits or digits past the last code are zero.
#pragma once

#include <cstddef>
#include <cstdint>

#include "include/bitpress.h"

namespace bitpress {

constexpr size_t kCodesPerByte2Bit = 4, kCodesPerByteTrits = 5;

size_t PackedRowBytes(size_t cols, bp_packing packing);

// True where every byte of the row is one that the packing can produce, padding included.
bool PackedRowIsValid(const uint8_t* row, size_t cols, bp_packing packing);

// One valid row to cols codes in {-1, 0, 1}.
void UnpackRow(const uint8_t* row, size_t cols, bp_packing packing, int8_t* codes);

}  // namespace bitpress
