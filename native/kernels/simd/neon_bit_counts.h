// Counts of bits by table look-up, shared by the binary linear layer and bit attention. For neon.cc files only.
//
// A nibble of weights (four inputs of one output) indexes the 16 bytes of PairTables for two rows of activations: one
// `tbl` gives 16 outputs x 4 inputs x 2 rows = 128 products. Each result byte holds a count of the first row in its low
// and of the second in its high nibble.
//
// [xor and `cnt` on strings of bits: the layout, the same for every ISA, has nibbles; three operations for 128 products
// of one row, and then a sum across each register.]
#pragma once

#include "kernels/binary_linear/layout.h"
#include "kernels/simd/neon.h"

namespace bitpress::neondot {

// Steps for which a byte holds the counts of one row: 21 steps of 3 groups of 4 bits, 252 <= 255.
constexpr size_t kByteTriples = 21;
static_assert(kByteTriples * kTripleGroups * kGroupInputs <= 255, "a byte holds the counts of kByteTriples steps");

// Counts of one row for the 64 outputs of a panel in the order of a group's bytes (layout.h): registers 0 and 1 are the
// low nibbles of its two halves, 2 and 3 the high ones.
struct ByteCounts {
  uint8x16_t at[4];
};
// The same in the order of the outputs. int16: a count is at most kMaxBinaryInputs.
struct Counts {
  uint16x8_t at[8];
};

// Adds bytes, of which those at even positions are 16 outputs in order and those at odd positions the 16 after them.
inline void AddCounts(const ByteCounts& bytes, Counts& counts) {
  for (int half = 0; half < 2; ++half) {
    const uint8x16_t even = vuzp1q_u8(bytes.at[2 * half], bytes.at[2 * half + 1]);
    const uint8x16_t odd = vuzp2q_u8(bytes.at[2 * half], bytes.at[2 * half + 1]);
    uint16x8_t* to = counts.at + 4 * half;
    to[0] = vaddw_u8(to[0], vget_low_u8(even));
    to[1] = vaddw_high_u8(to[1], even);
    to[2] = vaddw_u8(to[2], vget_low_u8(odd));
    to[3] = vaddw_high_u8(to[3], odd);
  }
}

// Where the tables of two rows are: one offset into PairTables for each group; groups past the rows' `bytes` have
// offset 0, which counts 0 against the zero weights there.
inline void PairOffsets(const uint8_t* first, const uint8_t* second, size_t bytes, size_t groups, uint16_t* offsets) {
  for (size_t group = 0; group < groups; ++group) {
    const size_t byte = group / 2;
    const unsigned shift = group % 2 * 4;
    const unsigned low = byte < bytes ? first[byte] >> shift & 15u : 0,
                   high = byte < bytes ? second[byte] >> shift & 15u : 0;
    offsets[group] = static_cast<uint16_t>((low + 16 * high) * 16);
  }
}

// Counts of all groups of a panel for two rows.
inline void CountPair(const uint8_t* panel, const uint16_t* offsets, const PairTables& tables, size_t triples,
                      Counts (&counts)[2]) {
  const uint8x16_t low_nibbles = vdupq_n_u8(15);
  for (Counts& row : counts) {
    for (uint16x8_t& c : row.at) c = vdupq_n_u16(0);
  }
  for (size_t begin = 0; begin < triples; begin += kByteTriples) {
    const size_t end = triples - begin < kByteTriples ? triples : begin + kByteTriples;
    ByteCounts first, second;
    for (int i = 0; i < 4; ++i) first.at[i] = second.at[i] = vdupq_n_u8(0);
    for (size_t triple = begin; triple < end; ++triple) {
      // Two counts a byte, which do not carry into each other: three groups count at most 12.
      uint8x16_t sum[4];
#pragma GCC unroll 3
      for (size_t g = 0; g < kTripleGroups; ++g) {
        const size_t group = triple * kTripleGroups + g;
        const uint8x16_t table = vld1q_u8(tables.bytes + offsets[group]);
        const uint8_t* weights = panel + group * sizeof(BinaryGroup);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          const uint8x16_t packed = vld1q_u8(weights + 16 * half);
          const uint8x16_t low = vqtbl1q_u8(table, vandq_u8(packed, low_nibbles));
          const uint8x16_t high = vqtbl1q_u8(table, vshrq_n_u8(packed, 4));
          sum[half] = g == 0 ? low : vaddq_u8(sum[half], low);
          sum[2 + half] = g == 0 ? high : vaddq_u8(sum[2 + half], high);
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        first.at[i] = vaddq_u8(first.at[i], vandq_u8(sum[i], low_nibbles));
        second.at[i] = vsraq_n_u8(second.at[i], sum[i], 4);
      }
    }
    AddCounts(first, counts[0]);
    AddCounts(second, counts[1]);
  }
}

inline size_t CountOnes(const uint8_t* row, size_t bytes) {
  size_t ones = 0;
  for (size_t i = 0; i < bytes; i += 16) ones += vaddlvq_u8(vcntq_u8(LoadFirstBytes(row + i, bytes - i)));
  return ones;
}

// Dot products of one row with the 64 outputs of a panel; |dot| <= kMaxBinaryInputs, and int16 wraps around on the way.
struct PanelDots {
  int16x8_t at[8];
};
inline PanelDots DotsOf(const Counts& counts, int base, int step) {
  PanelDots dots;
  for (int i = 0; i < 8; ++i) {
    dots.at[i] = vmlaq_n_s16(vdupq_n_s16(static_cast<int16_t>(base)), vreinterpretq_s16_u16(counts.at[i]),
                             static_cast<int16_t>(step));
  }
  return dots;
}

// Bit i of eight lanes: (dot > above) xor flip.
inline uint8_t PassedBits(int16x8_t dots, const int16_t* above, const int16_t* flip) {
  const uint16x8_t bit = {1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t passed = veorq_u16(vcgtq_s16(dots, vld1q_s16(above)), vreinterpretq_u16_s16(vld1q_s16(flip)));
  return static_cast<uint8_t>(vaddvq_u16(vandq_u16(passed, bit)));
}

}  // namespace bitpress::neondot
