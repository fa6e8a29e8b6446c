#include "kernels/binary_linear/avx2_sweep.h"
#include "kernels/simd/avx512_bit_counts.h"

namespace bitpress::avx512vnni {

void BinaryLinearFloat(const BinaryInput& x, const BinaryMatrix& w, const BinaryAffine& affine, size_t panel_begin,
                       size_t panel_end, float* y, size_t ldy, void* scratch) {
  avx2::ForDots<Avx512Bits>(
      x, w, panel_begin, panel_end, scratch, [&](size_t row, size_t panel, const PanelDots& dots) {
        for (size_t i = 0; i < kBitPanel / F32::kCount; ++i) {
          const size_t n = panel * kBitPanel + i * F32::kCount;
          if (n >= w.outputs) return;
          const __m512i sixteens = dots.at[i % 2];
          const __m256i sixteen = i < 2 ? _mm512_castsi512_si256(sixteens) : _mm512_extracti64x4_epi64(sixteens, 1);
          const F32 dot = ToFloat({_mm512_cvtepi16_epi32(sixteen)});
          StoreFirst(y + row * ldy + n, w.outputs - n,
                     Fma(dot, F32::Load(&affine.scale[n]), F32::Load(&affine.bias[n])));
        }
      });
}

void BinaryLinearBits(const BinaryInput& x, const BinaryMatrix& w, const BinaryThresholds& thresholds,
                      size_t panel_begin, size_t panel_end, uint8_t* y, size_t ldy, void* scratch) {
  avx2::ForDots<Avx512Bits>(x, w, panel_begin, panel_end, scratch,
                            [&](size_t row, size_t panel, const PanelDots& dots) {
                              const uint64_t bits = Avx512Bits::PassedBits(dots, thresholds, panel);
                              __builtin_memcpy(y + row * ldy + panel * (kBitPanel / 8), &bits, sizeof(bits));
                            });
}

}  // namespace bitpress::avx512vnni
