// Packed blocks of a panel (layout.h) to the signed bytes that a tile multiplies.
//
// A shuffle looks at the low four bits of a byte (and gives zero where the highest is set), so fields of two bits come
// out of nibbles, two from each, by two tables: of the low and of the high field.
#pragma once

#include "kernels/integer_linear/layout.h"
#include "kernels/simd/avx2.h"

namespace bitpress::avx2 {
namespace {

struct UnpackTables {
  __m256i low, high;  // of the low and the high two bits of a nibble; 3 and 4 bits: `low` of the whole nibble

  explicit UnpackTables(const IntegerMatrix& w) {
    int8_t low_fields[16], high_fields[16];
    for (int nibble = 0; nibble < 16; ++nibble) {
      low_fields[nibble] = w.table[w.bits == 2 ? nibble & 3 : nibble];
      high_fields[nibble] = w.table[nibble >> 2];
    }
    low = Broadcast(low_fields);
    high = Broadcast(high_fields);
  }

 private:
  static __m256i Broadcast(const int8_t* table) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  }
};

inline void StoreLookup(int8_t* panel, size_t reg, __m256i table, __m256i codes) {
  StoreInt(panel + reg * kVectorBytes, {_mm256_shuffle_epi8(table, codes)});
}

inline void UnpackBlock2(const uint8_t* block, const UnpackTables& tables, int8_t* panel) {
  const __m256i nibble = _mm256_set1_epi8(15);
  for (size_t v = 0; v < 2; ++v) {
    const __m256i packed = LoadInt(block + v * kVectorBytes).v;
    const __m256i first = _mm256_and_si256(packed, nibble);
    const __m256i second = _mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble);
    StoreLookup(panel, 4 * v, tables.low, first);
    StoreLookup(panel, 4 * v + 1, tables.high, first);
    StoreLookup(panel, 4 * v + 2, tables.low, second);
    StoreLookup(panel, 4 * v + 3, tables.high, second);
  }
}

template <int Reg>
inline void UnpackRegister3(__m256i low, __m256i high, const UnpackTables& tables, int8_t* panel) {
  const __m256i low_bits = _mm256_and_si256(_mm256_srli_epi16(low, 2 * (Reg % 4)), _mm256_set1_epi8(3));
  const __m256i moved = Reg < 2 ? _mm256_slli_epi16(high, 2 - Reg) : _mm256_srli_epi16(high, Reg - 2);
  const __m256i high_bit = _mm256_and_si256(moved, _mm256_set1_epi8(4));
  StoreLookup(panel, Reg, tables.low, _mm256_or_si256(low_bits, high_bit));
}

inline void UnpackBlock3(const uint8_t* block, const UnpackTables& tables, int8_t* panel) {
  const __m256i low0 = LoadInt(block).v, low1 = LoadInt(block + kVectorBytes).v;
  const __m256i high = LoadInt(block + 2 * kVectorBytes).v;
  UnpackRegister3<0>(low0, high, tables, panel);
  UnpackRegister3<1>(low0, high, tables, panel);
  UnpackRegister3<2>(low0, high, tables, panel);
  UnpackRegister3<3>(low0, high, tables, panel);
  UnpackRegister3<4>(low1, high, tables, panel);
  UnpackRegister3<5>(low1, high, tables, panel);
  UnpackRegister3<6>(low1, high, tables, panel);
  UnpackRegister3<7>(low1, high, tables, panel);
}

inline void UnpackBlock4(const uint8_t* block, const UnpackTables& tables, int8_t* panel) {
  const __m256i nibble = _mm256_set1_epi8(15);
  for (size_t v = 0; v < 4; ++v) {
    const __m256i packed = LoadInt(block + v * kVectorBytes).v;
    StoreLookup(panel, 2 * v, tables.low, _mm256_and_si256(packed, nibble));
    StoreLookup(panel, 2 * v + 1, tables.low, _mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble));
  }
}

// Where the signed bytes of `blocks` blocks are: in `panel`, or where they were if they are not packed (8 bits).
inline const int8_t* UnpackBlocks(const uint8_t* packed, unsigned bits, size_t blocks, const UnpackTables& tables,
                                  int8_t* panel) {
  constexpr size_t kUnpackedBytes = BlockBytes(8);
  switch (bits) {
    case 2:
      for (size_t b = 0; b < blocks; ++b) UnpackBlock2(packed + b * BlockBytes(2), tables, panel + b * kUnpackedBytes);
      return panel;
    case 3:
      for (size_t b = 0; b < blocks; ++b) UnpackBlock3(packed + b * BlockBytes(3), tables, panel + b * kUnpackedBytes);
      return panel;
    case 4:
      for (size_t b = 0; b < blocks; ++b) UnpackBlock4(packed + b * BlockBytes(4), tables, panel + b * kUnpackedBytes);
      return panel;
    default:
      return reinterpret_cast<const int8_t*>(packed);
  }
}

}  // namespace
}  // namespace bitpress::avx2
