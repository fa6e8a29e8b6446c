// A comparison of sixteen floats is two bytes of bits.
#include "kernels/simd/neon.h"

#include "kernels/sign_bits/sign_bits.h"

namespace bitpress::neondot {
namespace {

// Bit i is whether x >= limit in lane i.
uint16_t Compare(F32x16 x, F32x16 limit) {
  const auto narrow = [](uint32x4_t a, uint32x4_t b) { return vcombine_u16(vmovn_u32(a), vmovn_u32(b)); };
  const uint16x8_t low = narrow(vcgeq_f32(x.a.v, limit.a.v), vcgeq_f32(x.b.v, limit.b.v));
  const uint16x8_t high = narrow(vcgeq_f32(x.c.v, limit.c.v), vcgeq_f32(x.d.v, limit.d.v));
  const uint16x8_t bit = {1, 2, 4, 8, 16, 32, 64, 128};
  return static_cast<uint16_t>(vaddvq_u16(vandq_u16(low, bit)) | vaddvq_u16(vandq_u16(high, bit)) << 8);
}

}  // namespace

void SignBits(const float* x, size_t ldx, size_t rows, size_t cols, float threshold, const float* column_thresholds,
              uint8_t* bits, size_t ldb) {
  const F32x16 same = F32x16::Broadcast(threshold);
  for (size_t row = 0; row < rows; ++row) {
    const float* from = x + row * ldx;
    uint8_t* to = bits + row * ldb;
    ForSixteens(cols, [&](size_t i, size_t count) {
      const F32x16 limit = column_thresholds ? LoadFirst(column_thresholds + i, count) : same;
      const unsigned found = Compare(LoadFirst(from + i, count), limit) & ((1u << count) - 1);
      to[i / 8] = static_cast<uint8_t>(found);
      if (count > 8) to[i / 8 + 1] = static_cast<uint8_t>(found >> 8);
    });
    const size_t written = (cols + 7) / 8;
    __builtin_memset(to + written, 0, ldb - written);
  }
}

}  // namespace bitpress::neondot
