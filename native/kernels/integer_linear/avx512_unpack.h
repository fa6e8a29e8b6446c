// Packed blocks of a panel (layout.h) to the signed bytes that a tile multiplies, as avx2_unpack.h does, two registers
// at once: of 2 and 3 bits register r and, from the upper half, a later one, which are brought in order before they are
// stored.
#pragma once

#include "kernels/integer_linear/unpack.h"
#include "kernels/simd/avx512vnni.h"

namespace bitpress::avx512vnni {
namespace {

struct UnpackTables {
  __m512i low, high;  // NibbleTables

  explicit UnpackTables(const IntegerMatrix& w) {
    const NibbleTables of(w);
    low = Broadcast(of.low);
    high = Broadcast(of.high);
  }

 private:
  static __m512i Broadcast(const int8_t* table) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  }
};

inline __m512i Nibbles(__m512i a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }

// a: registers i and i + n, b: i + 1 and i + 1 + n; stored in order from `panel` and n registers later.
inline void StoreInOrder(__m512i a, __m512i b, int8_t* panel, size_t n) {
  _mm512_storeu_si512(panel, _mm512_shuffle_i64x2(a, b, 0x44));
  _mm512_storeu_si512(panel + n * kVectorBytes, _mm512_shuffle_i64x2(a, b, 0xEE));
}

inline void UnpackBlock2(const uint8_t* block, const UnpackTables& tables, int8_t* panel) {
  const __m512i packed = _mm512_loadu_si512(block), first = Nibbles(packed);
  const __m512i second = Nibbles(_mm512_srli_epi16(packed, 4));
  StoreInOrder(_mm512_shuffle_epi8(tables.low, first), _mm512_shuffle_epi8(tables.high, first), panel, 4);
  StoreInOrder(_mm512_shuffle_epi8(tables.low, second), _mm512_shuffle_epi8(tables.high, second),
               panel + 2 * kVectorBytes, 4);
}

// Registers Reg and Reg + 4. high: their third bits from bit 0 on, of Reg 0 and 4, 1 and 5, …
template <int Reg>
inline __m512i Look3(__m512i low, __m512i high, const UnpackTables& tables) {
  const __m512i low_bits = _mm512_and_si512(_mm512_srli_epi16(low, 2 * Reg), _mm512_set1_epi8(3));
  const __m512i moved = Reg < 2 ? _mm512_slli_epi16(high, 2 - Reg) : _mm512_srli_epi16(high, Reg - 2);
  const __m512i high_bit = _mm512_and_si512(moved, _mm512_set1_epi8(4));
  return _mm512_shuffle_epi8(tables.low, _mm512_or_si512(low_bits, high_bit));
}

inline void UnpackBlock3(const uint8_t* block, const UnpackTables& tables, int8_t* panel) {
  const __m512i low = _mm512_loadu_si512(block);
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 2 * kVectorBytes));
  const __m512i high = _mm512_inserti64x4(_mm512_castsi256_si512(bits), _mm256_srli_epi16(bits, 4), 1);
  StoreInOrder(Look3<0>(low, high, tables), Look3<1>(low, high, tables), panel, 4);
  StoreInOrder(Look3<2>(low, high, tables), Look3<3>(low, high, tables), panel + 2 * kVectorBytes, 4);
}

// Each vector in both halves, of which the upper one is shifted to the second field: in order as it is, which saves a
// shuffle of two a register. [The same for 2 and 3 bits, whose fields it would shift one by one: no gain.]
inline void UnpackBlock4(const uint8_t* block, const UnpackTables& tables, int8_t* panel) {
  const __m512i shifts = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
  for (size_t v = 0; v < 4; ++v) {
    const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + v * kVectorBytes));
    const __m512i codes = Nibbles(_mm512_srlv_epi16(_mm512_broadcast_i64x4(packed), shifts));
    _mm512_storeu_si512(panel + v * 2 * kVectorBytes, _mm512_shuffle_epi8(tables.low, codes));
  }
}

}  // namespace
}  // namespace bitpress::avx512vnni
