#include "kernels/binary_linear/avx2_sweep.h"

namespace bitpress::avx2 {

void BinaryLinearFloat(const BinaryInput& x, const BinaryMatrix& w, const BinaryAffine& affine, size_t panel_begin,
                       size_t panel_end, float* y, size_t ldy, void* scratch) {
  ForDots<Avx2Bits>(x, w, panel_begin, panel_end, scratch, [&](size_t row, size_t panel, const PanelDots& dots) {
    for (size_t i = 0; i < kBitPanel / kFloats; ++i) {
      const size_t n = panel * kBitPanel + i * kFloats;
      if (n >= w.outputs) return;
      const __m256i sixteen = dots.at[i / 2];
      const __m128i eight = i % 2 == 0 ? _mm256_castsi256_si128(sixteen) : _mm256_extracti128_si256(sixteen, 1);
      const F32 dot = ToFloat({_mm256_cvtepi16_epi32(eight)});
      StoreFirst(y + row * ldy + n, w.outputs - n, Fma(dot, Load(&affine.scale[n]), Load(&affine.bias[n])));
    }
  });
}

void BinaryLinearBits(const BinaryInput& x, const BinaryMatrix& w, const BinaryThresholds& thresholds,
                      size_t panel_begin, size_t panel_end, uint8_t* y, size_t ldy, void* scratch) {
  ForDots<Avx2Bits>(x, w, panel_begin, panel_end, scratch, [&](size_t row, size_t panel, const PanelDots& dots) {
    const uint64_t bits = PassedBits(dots, thresholds, panel);
    __builtin_memcpy(y + row * ldy + panel * (kBitPanel / 8), &bits, sizeof(bits));
  });
}

}  // namespace bitpress::avx2
