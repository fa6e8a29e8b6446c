// Counts of bits by the table look-up of avx2_bit_counts.h, with the 64 outputs of a panel in one register.
//
// A group's nibbles are one register, so a look-up gives 64 outputs x 4 inputs x 2 rows = 512 products; a step of three
// groups takes 3 shuffles and 1 shift, at 2 a cycle, for 1,536 products: 768 a cycle, where AVX2 has 384. A
// Zen 5 does 360: every shuffle takes the load of an offset and of a table at a random place.
#pragma once

#include "kernels/simd/avx2_bit_counts.h"
#include "kernels/simd/avx512.h"

namespace bitpress::avx512vnni {
namespace {

using avx2::kByteBlocks;
using avx2::kByteTriples;
using avx2::kUnpackedGroup;

// Counts of two rows as int16 in the order of the bytes of a group (layout.h): [0] of outputs 0-15 and 32-47, [1] of
// 16-31 and 48-63.
struct PairCounts {
  __m512i rows[2][2];
};
struct PanelDots {
  __m512i at[2];
};

// 32 values at 16-bit lanes `from` and `from` + 32, as PairCounts orders them.
__m512i LoadOrdered(const int16_t* from) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(avx2::LoadInt(from).v), avx2::LoadInt(from + 32).v, 1);
}

// A group as it is packed: low nibbles of its 32 bytes, then high ones.
__m512i Nibbles(const uint8_t* group) {
  const __m512i twice = _mm512_broadcast_i64x4(avx2::LoadInt(group).v);
  const __m512i shifts = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
  return _mm512_and_si512(_mm512_srlv_epi16(twice, shifts), _mm512_set1_epi8(15));
}

struct PackedPanel {
  const uint8_t* groups;
  __m512i Load(size_t group) const { return Nibbles(groups + group * sizeof(BinaryGroup)); }
};
struct UnpackedPanel {
  const uint8_t* groups;
  __m512i Load(size_t group) const { return _mm512_loadu_si512(groups + group * kUnpackedGroup); }
};

// ByteSums of avx2_bit_counts.h.
struct ByteSums {
  __m512i a, b;
};

// GatherCounts of avx2_bit_counts.h.
[[gnu::always_inline]] inline void GatherCounts(const ByteSums* sums, size_t blocks, size_t stride, bool add,
                                                PairCounts& counts) {
  const __m512i byte = _mm512_set1_epi16(255);
  const auto sixteen = [](__m512i x) { return _mm512_slli_epi16(x, 4); };
  __m512i e = _mm512_setzero_si512(), o = e, E = e, O = e;
  if (add) e = counts.rows[0][0], o = counts.rows[0][1], E = counts.rows[1][0], O = counts.rows[1][1];
  for (size_t block = 0; block < blocks; ++block) {
    const auto [a, b] = sums[block * stride];
    const __m512i second_odd = _mm512_srli_epi16(b, 8);
    const __m512i odd = _mm512_and_si512(_mm512_sub_epi16(_mm512_srli_epi16(a, 8), sixteen(second_odd)), byte);
    const __m512i second_even = _mm512_and_si512(_mm512_sub_epi16(b, sixteen(odd)), byte);
    const __m512i even = _mm512_and_si512(_mm512_sub_epi16(a, sixteen(second_even)), byte);
    e = _mm512_add_epi16(e, even);
    o = _mm512_add_epi16(o, odd);
    E = _mm512_add_epi16(E, second_even);
    O = _mm512_add_epi16(O, second_odd);
  }
  counts.rows[0][0] = e, counts.rows[0][1] = o, counts.rows[1][0] = E, counts.rows[1][1] = O;
}

// LookUp of avx2_bit_counts.h; with registers to spare it needs no barriers.
template <int P, class Panel>
[[gnu::always_inline]] inline void LookUp(const uint16_t* offsets, size_t stride, const PairTables& tables, Panel panel,
                                          size_t group, __m512i (&sum)[P]) {
#pragma GCC unroll 3
  for (size_t g = 0; g < kTripleGroups; ++g) {
    const __m512i nibbles = panel.Load(group + g);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const uint8_t* at = tables.bytes + offsets[p * stride + group + g];
      const __m512i table = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(at)));
      const __m512i found = _mm512_shuffle_epi8(table, nibbles);
      sum[p] = g == 0 ? found : _mm512_add_epi8(sum[p], found);
    }
  }
}

// CountPairs of avx2_bit_counts.h.
template <int P, class Panel>
[[gnu::noinline]] void Count(const uint16_t* offsets, size_t stride, const PairTables& tables, Panel panel,
                             size_t triples, bool add, PairCounts* counts) {
  ByteSums sums[kByteBlocks][P];
  size_t blocks = 0;
  for (size_t begin = 0; begin < triples; begin += kByteTriples, ++blocks) {
    const size_t end = triples - begin < kByteTriples ? triples : begin + kByteTriples;
    __m512i a[P], b[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) a[p] = b[p] = _mm512_setzero_si512();
    for (size_t group = begin * kTripleGroups; group < end * kTripleGroups; group += kTripleGroups) {
      __m512i sum[P];
      LookUp<P>(offsets, stride, tables, panel, group, sum);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        a[p] = _mm512_add_epi8(a[p], sum[p]);
        b[p] = _mm512_add_epi8(b[p], _mm512_srli_epi16(sum[p], 4));
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) sums[blocks][p] = {a[p], b[p]};
  }
  for (int p = 0; p < P; ++p) GatherCounts(sums[0] + p, blocks, P, add, counts[p]);
}

// As Avx2Bits.
struct Avx512Bits {
  static constexpr int kPairs = 4;
  using Counts = PairCounts;
  using Dots = PanelDots;

  static void UnpackPanel(const uint8_t* packed, size_t groups, uint8_t* panel) {
    for (size_t g = 0; g < groups; ++g) {
      _mm512_storeu_si512(panel + g * kUnpackedGroup, Nibbles(packed + g * sizeof(BinaryGroup)));
    }
  }
  static void CountPacked(const uint16_t* offsets, const PairTables& tables, const uint8_t* packed, size_t triples,
                          bool add, Counts* counts) {
    Count<1>(offsets, 0, tables, PackedPanel{packed}, triples, add, counts);
  }
  template <int P>
  static void CountPairs(const uint16_t* offsets, size_t stride, const PairTables& tables, const uint8_t* panel,
                         size_t triples, bool add, Counts* counts) {
    Count<P>(offsets, stride, tables, UnpackedPanel{panel}, triples, add, counts);
  }
  static Dots DotsOf(const Counts& counts, size_t row, int base, int step) {
    Dots dots;
    for (int i = 0; i < 2; ++i) {
      const __m512i scaled = _mm512_mullo_epi16(counts.rows[row][i], _mm512_set1_epi16(static_cast<int16_t>(step)));
      dots.at[i] = _mm512_add_epi16(_mm512_set1_epi16(static_cast<int16_t>(base)), scaled);
    }
    return dots;
  }
  static uint64_t PassedBits(const Dots& dots, const BinaryThresholds& thresholds, size_t panel) {
    const auto bits_of = [&](size_t i) -> uint64_t {
      const size_t n = panel * kBitPanel + i * 16;
      const __mmask32 passed = _mm512_cmpgt_epi16_mask(dots.at[i], LoadOrdered(&thresholds.above[n]));
      return passed ^ _mm512_movepi16_mask(LoadOrdered(&thresholds.flip[n]));
    };
    const uint64_t even = bits_of(0), odd = bits_of(1), low = 0xFFFF;
    return (even & low) | (odd & low) << 16 | (even >> 16) << 32 | (odd >> 16) << 48;
  }
  static void Store(const Dots& dots, int16_t* to) {
    for (size_t i = 0; i < 2; ++i) {
      avx2::StoreInt(to + 16 * i, {_mm512_castsi512_si256(dots.at[i])});
      avx2::StoreInt(to + 16 * i + 32, {_mm512_extracti64x4_epi64(dots.at[i], 1)});
    }
  }
  static void StoreCounts(const Counts& counts, size_t row, uint16_t* to) {
    const __m512i even = counts.rows[row][0], odd = counts.rows[row][1];
    avx2::StoreInterleaved(to, _mm512_castsi512_si256(even), _mm512_castsi512_si256(odd));
    avx2::StoreInterleaved(to + 32, _mm512_extracti64x4_epi64(even, 1), _mm512_extracti64x4_epi64(odd, 1));
  }
  template <int P>
  [[gnu::always_inline]] static void CountsWithin(const uint16_t* offsets, size_t stride, const PairTables& tables,
                                                  const uint8_t* panel, size_t triples, size_t most,
                                                  uint64_t (&bits)[2 * P]) {
    const __m512i low_nibbles = _mm512_set1_epi8(15);
    const __m512i limit = _mm512_set1_epi8(static_cast<char>(most < 255 ? most : 255));
    __m512i counts[2 * P];
    for (__m512i& row : counts) row = _mm512_setzero_si512();
    for (size_t t = 0; t < triples; ++t) {
      __m512i sum[P];
      LookUp<P>(offsets, stride, tables, UnpackedPanel{panel}, t * kTripleGroups, sum);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        const __m512i high = _mm512_srli_epi16(sum[p], 4);
        counts[2 * p] = _mm512_adds_epu8(counts[2 * p], _mm512_and_si512(sum[p], low_nibbles));
        counts[2 * p + 1] = _mm512_adds_epu8(counts[2 * p + 1], _mm512_and_si512(high, low_nibbles));
      }
    }
    for (int r = 0; r < 2 * P; ++r) bits[r] = _mm512_cmple_epu8_mask(counts[r], limit);
  }
};

}  // namespace
}  // namespace bitpress::avx512vnni
