// Two passes over a row that stays in L1: its range, then 16 codes at a time.
#include "kernels/quantize/neon_coder.h"
#include "kernels/quantize/quantize.h"

namespace bitpress::neondot {
namespace {

// One row with its codebook in every lane; the sum of its codes.
int32_t CodeRow(const float* x, size_t cols, const QuantizeSpec& spec, const Codebook<F32>& book, uint8_t* codes,
                size_t ldc) {
  __builtin_memset(codes + cols, 0, ldc - cols);
  if (__builtin_isnan(FirstLane(book.scale))) {
    __builtin_memset(codes, 0, cols);
    return 0;
  }
  const Coder coder(spec, book);
  const uint8x16_t ones = vdupq_n_u8(1);
  uint32x4_t sum = vdupq_n_u32(0);
  ForSixteens(cols, [&](size_t i, size_t count) {
    uint8x16_t bytes = Narrow(coder.Codes(LoadFirst(x + i, count)));
    if (count == kLanes) {
      vst1q_u8(codes + i, bytes);
    } else {
      uint8_t tail[kLanes];
      vst1q_u8(tail, bytes);
      __builtin_memcpy(codes + i, tail, count);
      bytes = LoadFirstBytes(tail, count);
    }
    sum = vdotq_u32(sum, bytes, ones);
  });
  return static_cast<int32_t>(vaddvq_u32(sum));
}

}  // namespace

void QuantizeRows(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                  size_t ldc, float* scale, float* offset, int32_t* code_sum) {
  for (size_t row = 0; row < rows; ++row) {
    const float* xr = x + row * ldx;
    RangeSearch search;
    if (!spec.is_static) SearchRow(xr, cols, search);
    const Codebook<F32> book = MakeCodebook(spec, search.Whole());
    const int32_t sum = CodeRow(xr, cols, spec, book, codes + row * ldc, ldc);
    if (code_sum) code_sum[row] = sum;
    scale[row] = FirstLane(book.scale);
    offset[row] = FirstLane(book.offset);
  }
}

void QuantizeBlock(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                   size_t ldc, float* scale, float* offset) {
  RangeSearch search;
  if (!spec.is_static) {
    for (size_t row = 0; row < rows; ++row) SearchRow(x + row * ldx, cols, search);
  }
  const Codebook<F32> book = MakeCodebook(spec, search.Whole());
  for (size_t row = 0; row < rows; ++row) {
    CodeRow(x + row * ldx, cols, spec, book, codes + row * ldc, ldc);
  }
  *scale = FirstLane(book.scale);
  *offset = FirstLane(book.offset);
}

}  // namespace bitpress::neondot
