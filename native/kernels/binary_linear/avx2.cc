#include "kernels/binary_linear/avx2_sweep.h"

namespace bitpress::avx2 {
namespace {

struct Avx2Bits {
  static constexpr int kPairs = 2;
  using Counts = PairCounts;

  static void UnpackPanel(const uint8_t* packed, size_t groups, uint8_t* panel) {
    for (size_t g = 0; g < groups; ++g) {
      const Nibbles nibbles = PackedPanel{packed}.Load(g);
      StoreInt(panel + g * kUnpackedGroup, {nibbles.half[0]});
      StoreInt(panel + g * kUnpackedGroup + 32, {nibbles.half[1]});
    }
  }
  static void CountPacked(const uint16_t* offsets, const PairTables& tables, const uint8_t* packed, size_t triples,
                          bool add, Counts* counts) {
    avx2::CountPairs<1>(offsets, 0, tables, PackedPanel{packed}, triples, add, counts);
  }
  template <int P>
  static void CountPairs(const uint16_t* offsets, size_t stride, const PairTables& tables, const uint8_t* panel,
                         size_t triples, bool add, Counts* counts) {
    avx2::CountPairs<P>(offsets, stride, tables, UnpackedPanel{panel}, triples, add, counts);
  }
  static PanelDots DotsOf(const Counts& counts, size_t row, int base, int step) {
    return avx2::DotsOf(counts.rows[row], base, step);
  }
};

}  // namespace

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
