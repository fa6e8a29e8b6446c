// AVX-512 with VNNI: tiles of up to 12 rows x 16 columns, a row in one register, for attention and fp32 linear layers
// (integer ones have their own, of two panels).
//
// 12 accumulators cover the latency (5) times the throughput (2 where there are two 512-bit pipes) of the multiplies,
// as 6 x 2 do in avx2_tiles.h; here a step loads 1 + 12 registers for 12 multiplies. Integer products and their
// addition are one instruction, so nothing can be moved apart and the tiles need no barriers. But they are functions:
// where GCC 12 inlines these loops into what surrounds them, it copies every accumulator twice a step.
//
// [16 rows, of which 32 registers have room: more row pointers than there are registers for them.]
#pragma once

#include "kernels/simd/avx2_tiles.h"

namespace bitpress::avx512vnni {
namespace {

inline __m512i BroadcastWord(const void* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof(word));
  return _mm512_set1_epi32(word);
}

class VnniTile {
 public:
  static constexpr int kRows = 12;

  // at[r][c] = sum over 4 * words inputs of a * panel. a: codes 0..255; panel: for every word 16 columns of four signed
  // bytes.
  template <int R>
  [[gnu::noinline]] static void MultiplyBytes(const uint8_t* a, size_t lda, const int8_t* panel, size_t words,
                                              avx2::Tile<avx2::I32, R>& tile) {
    __m512i acc[R];
    Clear(acc);
    for (size_t word = 0; word < words; ++word) {
      const __m512i columns = _mm512_loadu_si512(panel + word * 4 * avx2::kTileColumns);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) acc[r] = _mm512_dpbusd_epi32(acc[r], BroadcastWord(a + r * lda + word * 4), columns);
    }
    StoreRows(acc, tile);
  }

  // MultiplyFloat of avx2_tiles.h.
  template <int R>
  [[gnu::always_inline]] static void MultiplyFloat(const float* a, size_t lda, const float* panel, size_t depth,
                                                   avx2::Tile<avx2::F32, R>& tile) {
    __m512 acc[R];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
    for (size_t k = 0; k < depth; ++k) {
      const __m512 columns = _mm512_loadu_ps(panel + k * avx2::kTileColumns);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) acc[r] = _mm512_fmadd_ps(_mm512_set1_ps(a[r * lda + k]), columns, acc[r]);
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) _mm512_storeu_ps(tile.at[r], acc[r]);
  }

 private:
  template <int R>
  [[gnu::always_inline]] static void Clear(__m512i (&acc)[R]) {
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_si512();
  }
  // What follows a tile works on the AVX2 halves of its rows: it is the same code, and little beside the products.
  template <int R>
  [[gnu::always_inline]] static void StoreRows(const __m512i (&acc)[R], avx2::Tile<avx2::I32, R>& tile) {
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) _mm512_storeu_si512(tile.at[r], acc[r]);
  }
};

}  // namespace
}  // namespace bitpress::avx512vnni
