// AVX-VNNI: tiles of up to 6 rows x 16 columns as in avx2_tiles.h, with one instruction where AVX2 takes two or three.
//
// Products and their addition are one instruction, so nothing can be moved apart and the tiles need no barriers. But
// they are functions: where GCC 12 inlines these loops into what surrounds them, it copies every accumulator twice a
// step. 12 accumulators cover the latency (5) times the throughput (2) of these instructions.
#pragma once

#include "kernels/simd/avx2_tiles.h"

namespace bitpress::avxvnni {
namespace {

using avx2::BroadcastWord;
using avx2::I32;
using avx2::LoadInt;

// acc + the products of `a` and `b`: four u8 and s8 a lane, or two int16.
struct AddBytes {
  static constexpr size_t kInputs = 4;  // a lane
  static __m256i Add(__m256i acc, __m256i a, __m256i b) { return _mm256_dpbusd_avx_epi32(acc, a, b); }
};
struct AddPairs {
  static constexpr size_t kInputs = 2;
  static __m256i Add(__m256i acc, __m256i a, __m256i b) { return _mm256_dpwssd_avx_epi32(acc, a, b); }
};

class VnniTile {
 public:
  static constexpr int kRows = avx2::kTileRows;

  // at[r][c] = sum over 4 * steps inputs of a * panel. a: codes 0..255; panel: for every step 16 columns of four signed
  // bytes.
  template <int R>
  [[gnu::noinline]] static void MultiplyBytes(const uint8_t* a, size_t lda, const int8_t* panel, size_t steps,
                                              avx2::Tile<I32, R>& tile) {
    Multiply<R, AddBytes>(a, lda, panel, steps, tile);
  }
  // MultiplyInt16 of avx2_tiles.h.
  template <int R>
  [[gnu::noinline]] static void MultiplyInt16(const int16_t* a, size_t lda, const int16_t* panel, size_t pairs,
                                              avx2::Tile<I32, R>& tile) {
    Multiply<R, AddPairs>(a, lda, panel, pairs, tile);
  }

 private:
  template <int R, class Products, class A, class B>
  [[gnu::always_inline]] static void Multiply(const A* a, size_t lda, const B* panel, size_t steps,
                                              avx2::Tile<I32, R>& tile) {
    constexpr size_t kStep = Products::kInputs * avx2::kTileColumns;
    __m256i acc[R][2];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
    for (size_t step = 0; step < steps; ++step) {
      const I32 left = LoadInt(panel + step * kStep), right = LoadInt(panel + step * kStep + kStep / 2);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const __m256i x = BroadcastWord(a + r * lda + step * Products::kInputs);
        acc[r][0] = Products::Add(acc[r][0], x, left.v);
        acc[r][1] = Products::Add(acc[r][1], x, right.v);
      }
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      tile.at[r][0] = {acc[r][0]};
      tile.at[r][1] = {acc[r][1]};
    }
  }
};

}  // namespace
}  // namespace bitpress::avxvnni
