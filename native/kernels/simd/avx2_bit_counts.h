// Counts of bits by table look-up, shared by the binary linear layer and bit attention.
//
// A weight nibble (four inputs of one output) indexes the 16 bytes of PairTables for two activation rows: one `vpshufb`
// gives 32 outputs x 4 inputs x 2 rows = 256 products. Each result byte holds a count of the first row in its low and of
// the second in its high nibble.
//
// Floor of a step of three groups, for 32 outputs: 3 shuffles and 1 shift at 2 a cycle, 4 additions beside them:
// 2 cycles for 768 products, 384 a cycle.
//
// [Tables copied out per row, instead of offsets into the one constant 4 KB: 7 % faster, but 8 bytes for each
//  activation bit, which no longer fits the caches at 3,072 inputs. One row in a table: half the speed.
//  xor and popcount: 8 operations for 256 products instead of 8 for 768.]
#pragma once

#include "kernels/binary_linear/layout.h"
#include "kernels/simd/avx2.h"

namespace bitpress::avx2 {

// Unpacked: a nibble in each byte, 64 bytes a group.
constexpr size_t kUnpackedGroup = kBitPanel;
constexpr size_t kUnpackedTriple = kTripleGroups * kUnpackedGroup;

// Steps for which the byte fields of SplitCounts hold the counts: 21 steps of 3 groups of 4 bits, 252 <= 255.
constexpr size_t kByteTriples = 21;
static_assert(kByteTriples * kTripleGroups * kGroupInputs <= 255, "a byte holds the counts of kByteTriples steps");

// Offsets of two rows into PairTables, OffsetStride(triples) of them. The rows have `bytes` bytes; groups past them get
// offset 0, which counts 0 against zero weights.
[[gnu::always_inline]] inline void PairOffsets(const uint8_t* first, const uint8_t* second, size_t bytes,
                                               size_t offset_count, uint16_t* offsets) {
  const __m128i low_nibbles = _mm_set1_epi8(15);
  for (size_t at = 0; at * 2 < offset_count; at += 16) {
    __m128i a, b;
    if (bytes >= at + 16) {
      a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first + at));
      b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(second + at));
    } else {
      uint8_t tail[2][16] = {};
      for (size_t i = at; i < bytes; ++i) {
        tail[0][i - at] = first[i];
        tail[1][i - at] = second[i];
      }
      a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(tail[0]));
      b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(tail[1]));
    }
    // Index of a table: nibble of the first row + 16 * nibble of the second; even groups are the low nibbles.
    const __m128i even = _mm_or_si128(_mm_and_si128(a, low_nibbles), _mm_slli_epi16(_mm_and_si128(b, low_nibbles), 4));
    const __m128i odd =
        _mm_or_si128(_mm_and_si128(_mm_srli_epi16(a, 4), low_nibbles), _mm_andnot_si128(low_nibbles, b));
    const __m256i left = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(even, odd));
    const __m256i right = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(even, odd));
    StoreInt(offsets + 2 * at, {_mm256_slli_epi16(left, 4)});
    StoreInt(offsets + 2 * at + 16, {_mm256_slli_epi16(right, 4)});
  }
}

// Counts of two rows for the 64 outputs of a panel, as int16: rows[r][i] are outputs 16 i .. 16 i + 15.
struct PairCounts {
  __m256i rows[2][4];
};

// Adds the counts of kByteTriples steps at most. As 16-bit lanes, with counts e and o of the even and odd byte for the
// first row and E and O for the second, each <= 252: the bytes of `a` are e + 16 E and o + 16 O modulo 256, those of
// `b` E + 16 o modulo 256 and O.
[[gnu::always_inline]] inline void SplitCounts(__m256i a, __m256i b, int half, PairCounts& counts) {
  const __m256i byte = _mm256_set1_epi16(255);
  const __m256i second_odd = _mm256_srli_epi16(b, 8);
  const __m256i first_odd =
      _mm256_and_si256(_mm256_sub_epi16(_mm256_srli_epi16(a, 8), _mm256_slli_epi16(second_odd, 4)), byte);
  const __m256i second_even = _mm256_and_si256(_mm256_sub_epi16(b, _mm256_slli_epi16(first_odd, 4)), byte);
  const __m256i first_even = _mm256_and_si256(_mm256_sub_epi16(a, _mm256_slli_epi16(second_even, 4)), byte);
  __m256i *first = counts.rows[0] + 2 * half, *second = counts.rows[1] + 2 * half;
  first[0] = _mm256_add_epi16(first[0], first_even);
  first[1] = _mm256_add_epi16(first[1], first_odd);
  second[0] = _mm256_add_epi16(second[0], second_even);
  second[1] = _mm256_add_epi16(second[1], second_odd);
}

// Adds the counts of `triples` steps of an unpacked panel. int16: a count is at most kMaxBinaryInputs.
[[gnu::always_inline]] inline void CountPair(const uint16_t* offsets, const PairTables& tables, const uint8_t* panel,
                                             size_t triples, PairCounts& counts) {
  for (size_t begin = 0; begin < triples; begin += kByteTriples) {
    const size_t end = triples - begin < kByteTriples ? triples : begin + kByteTriples;
    __m256i a[2], b[2];
    for (int half = 0; half < 2; ++half) a[half] = b[half] = _mm256_setzero_si256();
    for (size_t t = begin; t < end; ++t) {
      __m256i sum[2];
#pragma GCC unroll 3
      for (size_t g = 0; g < kTripleGroups; ++g) {
        const auto* at = reinterpret_cast<const __m128i*>(tables.bytes + offsets[kTripleGroups * t + g]);
        const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128(at));
        const uint8_t* nibbles = panel + t * kUnpackedTriple + g * kUnpackedGroup;
        for (int half = 0; half < 2; ++half) {
          const __m256i found = _mm256_shuffle_epi8(table, LoadInt(nibbles + 32 * half).v);
          // No carry between the nibbles: three groups count at most 12.
          sum[half] = g == 0 ? found : _mm256_add_epi8(sum[half], found);
        }
      }
      for (int half = 0; half < 2; ++half) {
        // Bytes wrap around; SplitCounts undoes that. The high nibbles move down as 16-bit lanes, without a mask.
        a[half] = _mm256_add_epi8(a[half], sum[half]);
        b[half] = _mm256_add_epi8(b[half], _mm256_srli_epi16(sum[half], 4));
      }
    }
    for (int half = 0; half < 2; ++half) SplitCounts(a[half], b[half], half, counts);
  }
}

// Dot products of one row from its counts; int16 wraps around on the way, but |dot| <= kMaxBinaryInputs.
struct PanelDots {
  __m256i at[4];  // outputs 16 i .. 16 i + 15
};
[[gnu::always_inline]] inline PanelDots DotsOf(const __m256i (&counts)[4], int base, int step) {
  PanelDots dots;
  for (int i = 0; i < 4; ++i) {
    const __m256i scaled = _mm256_mullo_epi16(counts[i], _mm256_set1_epi16(static_cast<int16_t>(step)));
    dots.at[i] = _mm256_add_epi16(_mm256_set1_epi16(static_cast<int16_t>(base)), scaled);
  }
  return dots;
}

// Bit n is lane n of four masks of 16 lanes, each 0 or -1.
[[gnu::always_inline]] inline uint64_t PackMasks(const __m256i (&masks)[4]) {
  uint64_t bits = 0;
  for (int half = 0; half < 2; ++half) {
    // The pack works within 128-bit lanes, the permutation undoes that.
    const __m256i bytes = _mm256_packs_epi16(masks[2 * half], masks[2 * half + 1]);
    const auto word = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_permute4x64_epi64(bytes, 0xD8)));
    bits |= uint64_t{word} << (32 * half);
  }
  return bits;
}

}  // namespace bitpress::avx2
