// The canonical packings of weight codes in artifacts (docs/artifact.md): checking and unpacking, the same on every
// ISA.
//
// bits   a row is a little-endian bit string: code j in bits [j * bits, (j + 1) * bits), lowest first, so 3 bits are
//        8 codes in 3 bytes. Ternary codes are two's complement: 00 = 0, 01 = +1, 11 = -1, 10 invalid. Symmetric
//        uniform codes stand for code - 2^(bits - 1), of which the lowest, code 0, is invalid.
// trits  ternary only: five codes a byte, digit d = code mod 3 (0, 1, 2 for 0, +1, -1), byte = sum of d_j 3^j <= 242.
// Every row starts on a byte; bits or digits past the last code are zero.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitpress {

enum class CodeScheme { kTernary, kUniform, kCodebook, kBinary };

struct CodeFormat {
  CodeScheme scheme = CodeScheme::kTernary;
  unsigned bits = 2;       // ternary 2; uniform 2, 3, 4, 8; codebook 2, 3, 4; binary 1
  bool trits = false;      // ternary only
  bool symmetric = false;  // uniform only
};

size_t PackedRowBytes(const CodeFormat& format, size_t cols);

// One row to cols unsigned codes, one a byte (ternary, trits as well: 0, 1, 3). False where the row is none that the
// packing can produce: an invalid code, a byte of trits above 242, padding that is not zero; codes are then arbitrary.
bool UnpackCodes(const CodeFormat& format, const uint8_t* row, size_t cols, uint8_t* codes);

}  // namespace bitpress
