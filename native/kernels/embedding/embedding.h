// y = decode(word row) + position row + token-type row, summed in that order: (word + type) + position, as BERT does.
#pragma once

#include "kernels/numerics.h"

namespace bitpress {

// One row of a packed ternary table as floats: y[j] = scale * code[j]. Packing: kernels/packed_codes/packed_codes.h.
using DecodeTwoBitRowFn = void (*)(const uint8_t* codes, size_t cols, float scale, float* y);
using DecodeTritsRowFn = void (*)(const uint8_t* codes, size_t cols, float scale, float* y);
// One row of a table of uniform codes, bits 2, 3, 4 or 8: y[j] = scale * (code[j] - zero) + offset, a multiplication
// and then an addition. Symmetric codes have zero 2^(bits - 1) and offset +0, the others zero 0.
using DecodeUniformRowFn = void (*)(const uint8_t* codes, size_t cols, unsigned bits, int zero, float scale,
                                    float offset, float* y);
// One row of a table of codebook codes, bits 2, 3 or 4: y[j] = values[code[j]]; of 16 values the first 2^bits.
using DecodeCodebookRowFn = void (*)(const uint8_t* codes, size_t cols, unsigned bits, const float (&values)[16],
                                     float* y);
// One row of a table of signs: y[j] = +scale for bit 1, -scale for bit 0.
using DecodeBinaryRowFn = void (*)(const uint8_t* codes, size_t cols, float scale, float* y);
// One row of a table of two binary terms: y[j] = +-scales[0] + +-scales[1], the signs from a row of bits each.
using DecodeTwoTermsRowFn = void (*)(const uint8_t* const (&codes)[2], size_t cols, const float (&scales)[2], float* y);
// y[j] = (y[j] + type[j]) + position[j]
using AddRowsFn = void (*)(const float* type, const float* position, size_t cols, float* y);

namespace reference {
void DecodeTwoBitRow(const uint8_t* codes, size_t cols, float scale, float* y);
void DecodeTritsRow(const uint8_t* codes, size_t cols, float scale, float* y);
void DecodeUniformRow(const uint8_t* codes, size_t cols, unsigned bits, int zero, float scale, float offset, float* y);
void DecodeCodebookRow(const uint8_t* codes, size_t cols, unsigned bits, const float (&values)[16], float* y);
void DecodeBinaryRow(const uint8_t* codes, size_t cols, float scale, float* y);
void DecodeTwoTermsRow(const uint8_t* const (&codes)[2], size_t cols, const float (&scales)[2], float* y);
void AddRows(const float* type, const float* position, size_t cols, float* y);
}  // namespace reference
namespace avx2 {
void DecodeTwoBitRow(const uint8_t* codes, size_t cols, float scale, float* y);
void DecodeTritsRow(const uint8_t* codes, size_t cols, float scale, float* y);
void DecodeUniformRow(const uint8_t* codes, size_t cols, unsigned bits, int zero, float scale, float offset, float* y);
void DecodeCodebookRow(const uint8_t* codes, size_t cols, unsigned bits, const float (&values)[16], float* y);
void DecodeBinaryRow(const uint8_t* codes, size_t cols, float scale, float* y);
void DecodeTwoTermsRow(const uint8_t* const (&codes)[2], size_t cols, const float (&scales)[2], float* y);
void AddRows(const float* type, const float* position, size_t cols, float* y);
}  // namespace avx2
namespace neondot {
void DecodeTwoBitRow(const uint8_t* codes, size_t cols, float scale, float* y);
void DecodeTritsRow(const uint8_t* codes, size_t cols, float scale, float* y);
void DecodeUniformRow(const uint8_t* codes, size_t cols, unsigned bits, int zero, float scale, float offset, float* y);
void DecodeCodebookRow(const uint8_t* codes, size_t cols, unsigned bits, const float (&values)[16], float* y);
void DecodeBinaryRow(const uint8_t* codes, size_t cols, float scale, float* y);
void DecodeTwoTermsRow(const uint8_t* const (&codes)[2], size_t cols, const float (&scales)[2], float* y);
void AddRows(const float* type, const float* position, size_t cols, float* y);
}  // namespace neondot
}  // namespace bitpress
