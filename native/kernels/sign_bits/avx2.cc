// A comparison of eight floats is a byte of bits.
#include "kernels/simd/avx2.h"

#include "kernels/sign_bits/sign_bits.h"

namespace bitpress::avx2 {

void SignBits(const float* x, size_t ldx, size_t rows, size_t cols, float threshold, const float* column_thresholds,
              uint8_t* bits, size_t ldb) {
  const F32 same = F32::Broadcast(threshold);
  const size_t whole = cols / kFloats, tail = cols % kFloats;
  const I32 mask = TailMask(tail);
  const auto compare = [](F32 a, F32 b) { return _mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)); };
  for (size_t row = 0; row < rows; ++row) {
    const float* from = x + row * ldx;
    uint8_t* to = bits + row * ldb;
    for (size_t i = 0; i < whole; ++i) {
      const F32 limit = column_thresholds ? Load(column_thresholds + i * kFloats) : same;
      to[i] = static_cast<uint8_t>(compare(Load(from + i * kFloats), limit));
    }
    size_t written = whole;
    if (tail > 0) {
      const F32 limit = column_thresholds ? LoadMasked(column_thresholds + whole * kFloats, mask) : same;
      const int found = compare(LoadMasked(from + whole * kFloats, mask), limit);
      to[written++] = static_cast<uint8_t>(found & ((1 << tail) - 1));
    }
    __builtin_memset(to + written, 0, ldb - written);
  }
}

}  // namespace bitpress::avx2
