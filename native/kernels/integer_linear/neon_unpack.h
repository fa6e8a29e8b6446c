// Packed blocks of a panel (layout.h) to the signed bytes that a tile multiplies. For neon.cc only.
//
// A register of layout.h, 8 columns x 4 inputs, is two here: the bytes of four columns are what `sdot` takes.
#pragma once

#include "kernels/integer_linear/unpack.h"
#include "kernels/simd/neon.h"

namespace bitpress::neondot {

// Table look-ups of four bits; two fields of two bits come out of a nibble by two tables.
struct UnpackTables {
  int8x16_t low, high;  // NibbleTables

  explicit UnpackTables(const IntegerMatrix& w) {
    const NibbleTables of(w);
    low = vld1q_s8(of.low);
    high = vld1q_s8(of.high);
  }
};

// `half`: which 16 of the 32 bytes of each vector and register.
inline void StoreLookup(int8_t* panel, size_t reg, size_t half, int8x16_t table, uint8x16_t codes) {
  vst1q_s8(panel + reg * kVectorBytes + half, vqtbl1q_s8(table, codes));
}

inline void UnpackBlock2(const uint8_t* block, const UnpackTables& tables, int8_t* panel) {
  for (size_t v = 0; v < 2; ++v) {
    for (size_t half = 0; half < kVectorBytes; half += 16) {
      const uint8x16_t packed = vld1q_u8(block + v * kVectorBytes + half);
      const uint8x16_t first = vandq_u8(packed, vdupq_n_u8(15)), second = vshrq_n_u8(packed, 4);
      StoreLookup(panel, 4 * v, half, tables.low, first);
      StoreLookup(panel, 4 * v + 1, half, tables.high, first);
      StoreLookup(panel, 4 * v + 2, half, tables.low, second);
      StoreLookup(panel, 4 * v + 3, half, tables.high, second);
    }
  }
}

inline void UnpackBlock3(const uint8_t* block, const UnpackTables& tables, int8_t* panel) {
  for (size_t half = 0; half < kVectorBytes; half += 16) {
    const uint8x16_t high = vld1q_u8(block + 2 * kVectorBytes + half);
#pragma GCC unroll 8
    for (int reg = 0; reg < 8; ++reg) {
      const uint8x16_t low = vld1q_u8(block + static_cast<size_t>(reg / 4) * kVectorBytes + half);
      const uint8x16_t low_bits =
          vandq_u8(vshlq_u8(low, vdupq_n_s8(static_cast<int8_t>(-2 * (reg % 4)))), vdupq_n_u8(3));
      const uint8x16_t high_bit = vandq_u8(vshlq_u8(high, vdupq_n_s8(static_cast<int8_t>(2 - reg))), vdupq_n_u8(4));
      StoreLookup(panel, static_cast<size_t>(reg), half, tables.low, vorrq_u8(low_bits, high_bit));
    }
  }
}

inline void UnpackBlock4(const uint8_t* block, const UnpackTables& tables, int8_t* panel) {
  for (size_t v = 0; v < 4; ++v) {
    for (size_t half = 0; half < kVectorBytes; half += 16) {
      const uint8x16_t packed = vld1q_u8(block + v * kVectorBytes + half);
      StoreLookup(panel, 2 * v, half, tables.low, vandq_u8(packed, vdupq_n_u8(15)));
      StoreLookup(panel, 2 * v + 1, half, tables.low, vshrq_n_u8(packed, 4));
    }
  }
}

}  // namespace bitpress::neondot
