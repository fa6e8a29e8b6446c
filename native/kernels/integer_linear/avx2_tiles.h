// Products of one register tile, up to 6 rows of unsigned activation codes x 16 columns of signed weights, and where
// their sums go.
//
// A step takes four inputs: a broadcast of four activation codes a row, multiplied with both registers of the panel by
// `vpmaddubsw`, which adds the products of neighbouring inputs in int16. What follows depends on how many of those sums
// int16 can hold (IntegerMatrix::int16_steps).
#pragma once

#include "kernels/simd/avx2_tiles.h"

namespace bitpress::avx2 {
namespace {

constexpr size_t kStepInputs = 4, kStepBytes = kStepInputs * kTileColumns;

// The rows of a tile are unrolled always: accumulators that the compiler indexes by a variable lie in memory.
#define BITPRESS_FOR_ROWS _Pragma("GCC unroll 12") for (int r = 0; r < R; ++r)

// Any number of steps up to int16_steps >= 2 in int16, widened to int32 at their end.
//
// Floor: 12 multiplies at 2 a cycle and 12 additions that share the four vector pipes with them: 24 operations / 4 = 6
// cycles for 6 x 16 x 4 = 384 products, 64 a cycle.
template <int R>
[[gnu::always_inline]] inline void MultiplyInInt16(const uint8_t* a, size_t lda, const int8_t* panel, size_t steps,
                                                   Tile<I32, R>& tile) {
  const __m256i ones = _mm256_set1_epi16(1);
  I32 acc[R][2];  // int16, two lanes a column
  BITPRESS_FOR_ROWS acc[r][0] = acc[r][1] = I32{_mm256_setzero_si256()};
  for (size_t step = 0; step < steps; ++step) {
    I32 left = LoadInt(panel + step * kStepBytes), right = LoadInt(panel + step * kStepBytes + 32);
    BITPRESS_FOR_ROWS {
      const __m256i codes = BroadcastWord(a + r * lda + step * kStepInputs);
      const __m256i left_products = _mm256_maddubs_epi16(codes, left.v);
      const __m256i right_products = _mm256_maddubs_epi16(codes, right.v);
      if constexpr (R > 4) {
        acc[r][0].v = _mm256_add_epi16(acc[r][0].v, left_products);
        acc[r][1].v = _mm256_add_epi16(acc[r][1].v, right_products);
        HoldOrder(left, right, acc[r][0], acc[r][1]);
      } else {
        // HoldOrder and the additions in one: with registers to spare the compiler copies the accumulators between them
        // (8 rows, two tiles of 4: a quarter of the time). Full tiles have none to spare and are 8 % faster as above.
        asm volatile("vpaddw %4, %2, %2\n\tvpaddw %5, %3, %3"
                     : "+x"(left.v), "+x"(right.v), "+&x"(acc[r][0].v), "+x"(acc[r][1].v)
                     : "x"(left_products), "x"(right_products));
      }
    }
  }
  BITPRESS_FOR_ROWS {  // the two int16 lanes of a column to one int32
    tile.at[r][0] = {_mm256_madd_epi16(acc[r][0].v, ones)};
    tile.at[r][1] = {_mm256_madd_epi16(acc[r][1].v, ones)};
  }
}

// For int16_steps = 1: `vpmaddubsw` does not saturate, but its sums are widened at once.
//
// Floor: 24 multiplies (`vpmaddubsw`, `vpmaddwd` with ones) at 2 a cycle: 12 cycles for 384 products, 32 a cycle.
// The panel's registers are memory operands: 12 accumulators, ones, codes and two products fill all 16.
template <int R>
[[gnu::always_inline]] inline void MultiplyInInt32(const uint8_t* a, size_t lda, const int8_t* panel, size_t steps,
                                                   Tile<I32, R>& tile) {
  const __m256i ones = _mm256_set1_epi16(1);
  I32 acc[R][2];
  BITPRESS_FOR_ROWS acc[r][0] = acc[r][1] = I32{_mm256_setzero_si256()};
  for (size_t step = 0; step < steps; ++step) {
    const int8_t* weights = panel + step * kStepBytes;
    BITPRESS_FOR_ROWS {
      const __m256i codes = BroadcastWord(a + r * lda + step * kStepInputs);
      const __m256i left = _mm256_maddubs_epi16(codes, LoadInt(weights).v);
      const __m256i right = _mm256_maddubs_epi16(codes, LoadInt(weights + 32).v);
      acc[r][0] = acc[r][0] + I32{_mm256_madd_epi16(left, ones)};
      acc[r][1] = acc[r][1] + I32{_mm256_madd_epi16(right, ones)};
      HoldOrderAndReload(acc[r][0], acc[r][1]);
    }
  }
  BITPRESS_FOR_ROWS {
    tile.at[r][0] = acc[r][0];
    tile.at[r][1] = acc[r][1];
  }
}

// Where the sums of a tile's rows go, and the groups along the inputs that they belong to.
struct TileSums {
  int32_t (*sums)[kTileColumns];  // of a group that is not complete, or of all inputs where groups are not chained
  float (*totals)[kTileColumns];  // t of integer_linear.h, to which complete groups are added
  bool is_chained;
  bool add;          // the first steps belong to a group of which `sums` holds earlier ones
  size_t group_end;  // in steps from the first
  size_t group_steps;
  size_t all_steps;  // the end of the last group
  // Of the first group: its 16 columns; offset NULL: none.
  const float *scale, *offset;
  const int32_t* code_sums;  // of the first row, of the next one code_stride further
  size_t code_stride;
};

inline void AddToTotal(const TileSums& to, int r, size_t half, I32 sum) {
  float* total = to.totals[r] + half;
  const F32 scaled = Fma(ToFloat(sum), Load(to.scale + half), Load(total));
  if (to.offset == nullptr) return Store(total, scaled);
  const F32 code_sum = F32::Broadcast(static_cast<float>(to.code_sums[r * to.code_stride]));
  Store(total, Fma(code_sum, Load(to.offset + half), scaled));
}

// multiply(step, count, tile) over pieces of at most `interval` steps of one group, until `steps`.
template <int R, class Multiply>
[[gnu::always_inline]] inline void SumSteps(size_t steps, size_t interval, TileSums to, Multiply multiply) {
  for (size_t begin = 0, end; begin < steps; begin = end) {
    end = begin + interval < steps ? begin + interval : steps;
    if (end > to.group_end) end = to.group_end;
    Tile<I32, R> tile;
    multiply(begin, end - begin, tile);
    if (to.add) {
      BITPRESS_FOR_ROWS {
        tile.at[r][0] = tile.at[r][0] + LoadInt(to.sums[r]);
        tile.at[r][1] = tile.at[r][1] + LoadInt(to.sums[r] + kFloats);
      }
    }
    to.add = end < to.group_end;
    if (to.add || !to.is_chained) {
      BITPRESS_FOR_ROWS {
        StoreInt(to.sums[r], tile.at[r][0]);
        StoreInt(to.sums[r] + kFloats, tile.at[r][1]);
      }
      continue;
    }
    BITPRESS_FOR_ROWS {
      AddToTotal(to, r, 0, tile.at[r][0]);
      AddToTotal(to, r, kFloats, tile.at[r][1]);
    }
    to.group_end = to.group_end + to.group_steps < to.all_steps ? to.group_end + to.group_steps : to.all_steps;
    to.scale += kTileColumns;
    if (to.offset != nullptr) to.offset += kTileColumns;
    ++to.code_sums;
  }
}

#undef BITPRESS_FOR_ROWS

}  // namespace
}  // namespace bitpress::avx2
