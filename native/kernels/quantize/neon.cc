// Two passes over a row that stays in L1: its range, then 16 codes at a time.
#include "kernels/quantize/all_rows.h"
#include "kernels/quantize/neon_coder.h"

namespace bitpress::neondot {
namespace {

struct OneRow {
  using RangeSearch = neondot::RangeSearch;
  static int32_t CodeRow(const float* x, size_t cols, const QuantizeSpec& spec, const Codebook<F32>& book,
                         uint8_t* codes) {
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
};

}  // namespace

void QuantizeRows(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                  size_t ldc, float* scale, float* offset, int32_t* code_sum) {
  QuantizeAllRows<OneRow>(x, ldx, rows, cols, spec, codes, ldc, scale, offset, code_sum);
}

void QuantizeBlock(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                   size_t ldc, float* scale, float* offset) {
  QuantizeWholeBlock<OneRow>(x, ldx, rows, cols, spec, codes, ldc, scale, offset);
}

}  // namespace bitpress::neondot
