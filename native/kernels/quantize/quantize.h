// Activation quantization to 8 bits or 4: one scale and offset per row, or one for a block.
//
// code = clamp(round_half_even((x - zero) / scale)), value = scale * code + offset, with per range [lo, hi]:
//   asymmetric   scale = (hi - lo) / 255   zero = offset = lo             code 0..255
//   symmetric    scale = max|x| / 127      zero = 0, offset = -128 scale  code clamp(-127..127) + 128
//   nonnegative  scale = max / 255 (symmetric: / 127)   zero = offset = 0
// With 4 bits 15 stands in the place of 255, 7 of 127 and 8 of 128, here and below.
// Range of zero (scale not > 0): scale = 1, every code 0 (symmetric 128), offset = lo (symmetric -128, nonnegative 0).
// Static: the given scale; zero = offset (symmetric, nonnegative: 0); codes clamped to the same limits.
// The clip comes first. A minimum of -0 counts as +0. A NaN in a dynamic range makes scale and offset NaN and every
// code 0, so that it reaches the output; other inputs that are not finite give some code within the limits.
#pragma once

#include "kernels/numerics.h"

namespace bitpress {

// x: rows x cols floats, row stride ldx. codes: row stride ldc >= cols; columns cols..ldc-1 are written 0.
// scale, offset: one per row. code_sum: NULL, or one sum of codes per row.
using QuantizeRowsFn = void (*)(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec,
                                uint8_t* codes, size_t ldc, float* scale, float* offset, int32_t* code_sum);
// The same with one range for the whole block; scale and offset: one float each.
using QuantizeBlockFn = void (*)(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec,
                                 uint8_t* codes, size_t ldc, float* scale, float* offset);

namespace reference {
void QuantizeRows(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                  size_t ldc, float* scale, float* offset, int32_t* code_sum);
void QuantizeBlock(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                   size_t ldc, float* scale, float* offset);
}  // namespace reference
namespace avx2 {
void QuantizeRows(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                  size_t ldc, float* scale, float* offset, int32_t* code_sum);
void QuantizeBlock(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                   size_t ldc, float* scale, float* offset);
}  // namespace avx2
namespace avx512vnni {
void QuantizeRows(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                  size_t ldc, float* scale, float* offset, int32_t* code_sum);
void QuantizeBlock(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                   size_t ldc, float* scale, float* offset);
}  // namespace avx512vnni
namespace neondot {
void QuantizeRows(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                  size_t ldc, float* scale, float* offset, int32_t* code_sum);
void QuantizeBlock(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                   size_t ldc, float* scale, float* offset);
}  // namespace neondot
}  // namespace bitpress
