// y = decode(word row) + position row + token-type row, summed in that order: (word + type) + position, as BERT does.
#pragma once

#include "kernels/numerics.h"

namespace bitpress {

// One row of a packed ternary table as floats: y[j] = scale * code[j]. Packing: see docs/artifact.md.
using DecodeTwoBitRowFn = void (*)(const uint8_t* codes, size_t cols, float scale, float* y);
using DecodeTritsRowFn = void (*)(const uint8_t* codes, size_t cols, float scale, float* y);
// y[j] = (y[j] + type[j]) + position[j]
using AddRowsFn = void (*)(const float* type, const float* position, size_t cols, float* y);

namespace reference {
void DecodeTwoBitRow(const uint8_t* codes, size_t cols, float scale, float* y);
void DecodeTritsRow(const uint8_t* codes, size_t cols, float scale, float* y);
void AddRows(const float* type, const float* position, size_t cols, float* y);
}  // namespace reference
namespace avx2 {
void DecodeTwoBitRow(const uint8_t* codes, size_t cols, float scale, float* y);
void DecodeTritsRow(const uint8_t* codes, size_t cols, float scale, float* y);
void AddRows(const float* type, const float* position, size_t cols, float* y);
}  // namespace avx2
}  // namespace bitpress
