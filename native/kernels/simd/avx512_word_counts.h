// Counts of bits by `vpopcntd`: 16 outputs a register, 32 inputs a lane. A xor (or and), a count and an addition are
// 512 products, and the sums of a lane are the output's. Nothing is unpacked, looked up or summed across lanes.
//
// Floor: these three at four a cycle, of which two may count: 683 products a cycle (Zen 5). The look-up of
// avx512_bit_counts.h has eight for 1,536 products, but loads a table for every one of its shuffles: 360 were measured,
// and 600 to 650 here.
//
// [Carry-save adders before the counts (Harley-Seal): one saves a count and an addition and takes two ternary
//  operations: no fewer in all.]
//
// Only avx512vpopcntdq.cc files may include this; everything is in an unnamed namespace, for the reason given in
// avx2.h.
#pragma once

#include "kernels/binary_linear/count_ones.h"
#include "kernels/binary_linear/layout.h"
#include "kernels/simd/avx2.h"
#include "kernels/simd/avx512.h"

namespace bitpress::avx512vpopcntdq {
namespace {

using avx512vnni::F32;
using avx512vnni::I32;

constexpr size_t kRegisters = kBitPanel / F32::kCount;  // of a word of inputs, or an int32, for the outputs of a panel

// Of a row and the outputs of a panel, in order, as int32.
struct PanelDots {
  __m512i at[kRegisters];
};

inline __m512i BroadcastWord(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof(word));
  return _mm512_set1_epi32(word);
}

// Always unrolled: sums that the compiler indexes by a variable lie in memory, and every step would go through it.
#define BITPRESS_FOR_ROWS _Pragma("GCC unroll 4") for (size_t r = 0; r < R; ++r)
#define BITPRESS_FOR_REGISTERS _Pragma("GCC unroll 4") for (size_t i = 0; i < kRegisters; ++i)

// Bits in which `words` words of R rows differ from a panel's weights, or ones that they have in common. The loads of
// the weights are shared: for four rows there are 16 sums, 4 weights, an activation, and 11 registers for what is on
// its way to the sums.
//
// int32: a count is at most kMaxBinaryInputs.
template <BitSet kSet, size_t R>
[[gnu::always_inline]] inline void Count(const uint8_t* row, size_t stride, const uint8_t* panel, size_t words,
                                         PanelDots (&counts)[R]) {
  __m512i sums[R][kRegisters];
  BITPRESS_FOR_ROWS BITPRESS_FOR_REGISTERS sums[r][i] = _mm512_setzero_si512();
  for (size_t k = 0; k < words; ++k) {
    __m512i weights[kRegisters];
    BITPRESS_FOR_REGISTERS weights[i] = _mm512_loadu_si512(panel + k * sizeof(BinaryWords) + i * sizeof(__m512i));
    BITPRESS_FOR_ROWS {
      const __m512i x = BroadcastWord(row + r * stride + k * sizeof(uint32_t));
      BITPRESS_FOR_REGISTERS {
        const __m512i bits = kSet == BitSet::kSigns ? _mm512_xor_si512(weights[i], x) : _mm512_and_si512(weights[i], x);
        sums[r][i] = _mm512_add_epi32(sums[r][i], _mm512_popcnt_epi32(bits));
      }
    }
  }
  BITPRESS_FOR_ROWS BITPRESS_FOR_REGISTERS counts[r].at[i] = sums[r][i];
}
#undef BITPRESS_FOR_ROWS
#undef BITPRESS_FOR_REGISTERS

// f(row, dots) for all rows of bits, which end with a word: R <= 4 of them at a time. base(row): BaseOf of layout.h.
template <BitSet kSet, class Base, class F>
[[gnu::always_inline]] inline void ForDotsOf(const uint8_t* bits, size_t stride, size_t rows, const uint8_t* panel,
                                             size_t words, const Base& base, const F& f) {
  static_assert(kSignStep == -2 && kZeroOneStep == 2, "twice the count");
  avx2::ForTiles<4>(rows, [&](size_t first, auto count) {
    constexpr size_t kRows = decltype(count)::value;
    PanelDots dots[kRows];
    Count<kSet, kRows>(bits + first * stride, stride, panel, words, dots);
    for (size_t r = 0; r < kRows; ++r) {
      const __m512i from = _mm512_set1_epi32(base(first + r));
      for (__m512i& dot : dots[r].at) {
        const __m512i twice = _mm512_add_epi32(dot, dot);
        dot = kSet == BitSet::kSigns ? _mm512_sub_epi32(from, twice) : _mm512_add_epi32(from, twice);
      }
      f(first + r, dots[r]);
    }
  });
}

// Those of a panel, as PanelDots are compared with them.
struct PanelThresholds {
  __m512i above[kRegisters];
  uint64_t flip;

  PanelThresholds(const BinaryThresholds& thresholds, size_t panel) : flip(0) {
    const auto load = [](const int16_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); };
    for (size_t i = 0; i < kRegisters; ++i) {
      const size_t n = panel * kBitPanel + i * F32::kCount;
      above[i] = _mm512_cvtepi16_epi32(load(&thresholds.above[n]));
      flip |= uint64_t{_mm256_movepi16_mask(load(&thresholds.flip[n]))} << (i * F32::kCount);
    }
  }
  // (dot > above) xor flip
  uint64_t PassedBits(const PanelDots& dots) const {
    uint64_t bits = flip;
    for (size_t i = 0; i < kRegisters; ++i) {
      bits ^= uint64_t{_mm512_cmpgt_epi32_mask(dots.at[i], above[i])} << (i * F32::kCount);
    }
    return bits;
  }
};

}  // namespace
}  // namespace bitpress::avx512vpopcntdq
