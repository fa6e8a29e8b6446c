// Packed blocks of a panel (layout.h) to the signed bytes that a tile multiplies.
//
// A shuffle looks at the low four bits of a byte (and gives zero where the highest is set), so fields of two bits come
// out of nibbles, two from each, by two tables: of the low and of the high field.
#pragma once

#include "kernels/integer_linear/unpack.h"
#include "kernels/simd/avx2.h"

namespace bitpress::avx2 {
namespace {

struct UnpackTables {
  __m256i low, high;  // NibbleTables

  explicit UnpackTables(const IntegerMatrix& w) {
    const NibbleTables of(w);
    low = Broadcast(of.low);
    high = Broadcast(of.high);
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

}  // namespace
}  // namespace bitpress::avx2
