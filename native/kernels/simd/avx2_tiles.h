// Products of one register tile, up to 6 rows x 16 columns, shared by the fp32 linear layer and attention.
//
// Why 6 x 16: 12 accumulators cover the latency (4) times the throughput (2) of the multiply-adds, and with two panel
// registers and one broadcast they fill 15 of the 16 registers. A step loads 2 + 6 registers for 12 multiply-adds.
#pragma once

#include "kernels/simd/avx2.h"

namespace bitpress::avx2 {
namespace {

// Sums of a tile: row r, columns 0-7 and 8-15. The products below sum in local registers and store them here at the
// end: a tile that the caller indexes by a variable lies in memory, and every step would go through it.
template <class T, int R>
struct Tile {
  T at[R][2];
};

// The rows of a tile are unrolled always, for the reason above.
#define BITPRESS_FOR_ROWS _Pragma("GCC unroll 6") for (int r = 0; r < R; ++r)

// at[r][c] = fma chain over k < depth of a[r * lda + k] * panel[k * 16 + c], in order, from +0.
template <int R>
[[gnu::always_inline]] inline void MultiplyFloat(const float* a, size_t lda, const float* panel, size_t depth,
                                                 Tile<F32, R>& tile) {
  F32 acc[R][2];
  BITPRESS_FOR_ROWS acc[r][0] = acc[r][1] = Zero();
  for (size_t k = 0; k < depth; ++k) {
    const F32 left = Load(panel + k * kTileColumns), right = Load(panel + k * kTileColumns + kFloats);
    BITPRESS_FOR_ROWS {
      const F32 x = {_mm256_broadcast_ss(a + r * lda + k)};
      acc[r][0] = Fma(x, left, acc[r][0]);
      acc[r][1] = Fma(x, right, acc[r][1]);
    }
  }
  BITPRESS_FOR_ROWS {
    tile.at[r][0] = acc[r][0];
    tile.at[r][1] = acc[r][1];
  }
}

// at[r][c] = sum over 2 * pairs inputs of a * panel, exact. a: int16 codes 0..255, an even count per row; panel: for
// each pair of inputs 16 columns of two int16 codes 0..255.
template <int R>
[[gnu::always_inline]] inline void MultiplyInt16(const int16_t* a, size_t lda, const int16_t* panel, size_t pairs,
                                                 Tile<I32, R>& tile) {
  // int32: a pair adds at most 2 * 255^2 = 130,050, so 16,512 pairs (33,024 inputs) fit; kMaxAttentionInputs in
  // attention.h is that bound for max(tokens, head_size).
  I32 acc[R][2];
  BITPRESS_FOR_ROWS acc[r][0] = acc[r][1] = I32{_mm256_setzero_si256()};
  for (size_t p = 0; p < pairs; ++p) {
    I32 left = LoadInt(panel + p * 2 * kTileColumns), right = LoadInt(panel + p * 2 * kTileColumns + 16);
    BITPRESS_FOR_ROWS {
      const __m256i x = BroadcastWord(a + r * lda + 2 * p);
      acc[r][0] = acc[r][0] + I32{_mm256_madd_epi16(x, left.v)};
      acc[r][1] = acc[r][1] + I32{_mm256_madd_epi16(x, right.v)};
      HoldOrder(left, right, acc[r][0], acc[r][1]);
    }
  }
  BITPRESS_FOR_ROWS {
    tile.at[r][0] = acc[r][0];
    tile.at[r][1] = acc[r][1];
  }
}

#undef BITPRESS_FOR_ROWS

// These products as the parameter of what several ISAs share.
struct Avx2Tile {
  static constexpr int kRows = kTileRows;
  template <int R>
  [[gnu::always_inline]] static void MultiplyFloat(const float* a, size_t lda, const float* panel, size_t depth,
                                                   Tile<F32, R>& tile) {
    avx2::MultiplyFloat(a, lda, panel, depth, tile);
  }
  template <int R>
  [[gnu::always_inline]] static void MultiplyInt16(const int16_t* a, size_t lda, const int16_t* panel, size_t pairs,
                                                   Tile<I32, R>& tile) {
    avx2::MultiplyInt16(a, lda, panel, pairs, tile);
  }
};

}  // namespace
}  // namespace bitpress::avx2
