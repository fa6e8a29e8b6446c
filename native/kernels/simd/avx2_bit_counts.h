// Counts of bits by table look-up, shared by the binary linear layer and bit attention.
//
// A weight nibble (four inputs of one output) indexes the 16 bytes of PairTables for two activation rows: one `vpshufb`
// gives 32 outputs x 4 inputs x 2 rows = 256 products. Each result byte holds a count of the first row in its low and
// of the second in its high nibble.
//
// Floor of a step of three groups, for 32 outputs: 3 shuffles and 1 shift at 2 a cycle, 4 additions beside them:
// 2 cycles for 768 products, 384 a cycle.
//
// [Tables copied out per row, instead of offsets into the one constant 4 KB: 11 % faster in L1, but 8 bytes for each
//  activation bit, which no longer fits the caches at 3,072 inputs. One row in a table: half the speed.
//  xor and popcount: 8 operations for 256 products instead of 8 for 768.]
#pragma once

#include "kernels/binary_linear/layout.h"
#include "kernels/simd/avx2.h"

namespace bitpress::avx2 {
namespace {

// Steps for which the byte fields of GatherCounts hold the counts: 21 steps of 3 groups of 4 bits, 252 <= 255.
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

// The nibbles of outputs 0-31 and 32-63.
struct Nibbles {
  __m256i half[2];
};
// Where CountPairs takes them from: a panel as it is packed, or unpacked before to a nibble in each byte.
struct PackedPanel {
  const uint8_t* groups;
  Nibbles Load(size_t group) const {
    const __m256i low_nibbles = _mm256_set1_epi8(15), bytes = LoadInt(groups + group * sizeof(BinaryGroup)).v;
    return {{_mm256_and_si256(bytes, low_nibbles), _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low_nibbles)}};
  }
};
constexpr size_t kUnpackedGroup = kBitPanel;
struct UnpackedPanel {
  const uint8_t* groups;
  Nibbles Load(size_t group) const {
    const uint8_t* at = groups + group * kUnpackedGroup;
    return {{LoadInt(at).v, LoadInt(at + 32).v}};
  }
};

// The byte accumulators of 32 outputs over at most kByteTriples steps. As 16-bit lanes, with counts e and o of the even
// and the odd byte for the first row, E and O for the second, each <= 252: the bytes of `a` are e + 16 E and o + 16 O
// modulo 256, those of `b` E + 16 o modulo 256 and O.
struct ByteSums {
  __m256i a, b;
};
// Steps that one call of CountPairs may take.
constexpr size_t kByteBlocks = 4;
constexpr size_t kDepthTriples = kByteBlocks * kByteTriples;

// Counts of `blocks` byte accumulators, `stride` apart, in place of `counts` or added to them. int16: a count is at
// most kMaxBinaryInputs.
[[gnu::always_inline]] inline void GatherCounts(const ByteSums (*sums)[2], size_t blocks, size_t stride, bool add,
                                                PairCounts& counts) {
  const __m256i byte = _mm256_set1_epi16(255);
  for (int half = 0; half < 2; ++half) {
    __m256i *first = counts.rows[0] + 2 * half, *second = counts.rows[1] + 2 * half;
    __m256i total[4];  // e, o, E, O
    total[0] = total[1] = total[2] = total[3] = _mm256_setzero_si256();
    if (add) total[0] = first[0], total[1] = first[1], total[2] = second[0], total[3] = second[1];
    for (size_t block = 0; block < blocks; ++block) {
      const auto [a, b] = sums[block * stride][half];
      const auto sixteen = [](__m256i x) { return _mm256_slli_epi16(x, 4); };
      const __m256i O = _mm256_srli_epi16(b, 8);
      const __m256i o = _mm256_and_si256(_mm256_sub_epi16(_mm256_srli_epi16(a, 8), sixteen(O)), byte);
      const __m256i E = _mm256_and_si256(_mm256_sub_epi16(b, sixteen(o)), byte);
      const __m256i e = _mm256_and_si256(_mm256_sub_epi16(a, sixteen(E)), byte);
      total[0] = _mm256_add_epi16(total[0], e);
      total[1] = _mm256_add_epi16(total[1], o);
      total[2] = _mm256_add_epi16(total[2], E);
      total[3] = _mm256_add_epi16(total[3], O);
    }
    first[0] = total[0], first[1] = total[1], second[0] = total[2], second[1] = total[3];
  }
}

// One step: the counts of three groups for P pairs of rows, whose offsets are `stride` apart, as nibbles of each
// output. No carry between the nibbles: three groups count at most 12.
//
// Two pairs share the loads of the weights. The barriers hold those in registers, and keep the compiler from looking up
// ahead of the additions, and so from spilling accumulators.
template <int P, class Panel>
[[gnu::always_inline]] inline void LookUp(const uint16_t* offsets, size_t stride, const PairTables& tables, Panel panel,
                                          size_t group, __m256i (&sum)[P][2]) {
#pragma GCC unroll 3
  for (size_t g = 0; g < kTripleGroups; ++g) {
    Nibbles nibbles = panel.Load(group + g);
    if (P > 1) asm volatile("" : "+x"(nibbles.half[0]), "+x"(nibbles.half[1]));
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p) {
      const auto* at = reinterpret_cast<const __m128i*>(tables.bytes + offsets[p * stride + group + g]);
      const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128(at));
      for (int half = 0; half < 2; ++half) {
        const __m256i found = _mm256_shuffle_epi8(table, nibbles.half[half]);
        sum[p][half] = g == 0 ? found : _mm256_add_epi8(sum[p][half], found);
        asm volatile("" : "+x"(sum[p][half]));
      }
    }
  }
}

// Counts of at most kDepthTriples steps of a panel for P pairs of rows, in place of `counts` or added to them.
//
// The byte accumulators of all blocks are kept and gathered at the end: gathering after each block would interrupt the
// loop (7 %). For two pairs, 8 accumulators, 4 sums, two weights, a table and a look-up are all 16 registers.
template <int P, class Panel>
[[gnu::always_inline]] inline void CountPairs(const uint16_t* offsets, size_t stride, const PairTables& tables,
                                              Panel panel, size_t triples, bool add, PairCounts* counts) {
  ByteSums sums[kByteBlocks][P][2];
  size_t blocks = 0;
  for (size_t begin = 0; begin < triples; begin += kByteTriples, ++blocks) {
    const size_t end = triples - begin < kByteTriples ? triples : begin + kByteTriples;
    __m256i a[P][2], b[P][2];
    for (int p = 0; p < P; ++p) {
      for (int half = 0; half < 2; ++half) a[p][half] = b[p][half] = _mm256_setzero_si256();
    }
    for (size_t group = begin * kTripleGroups; group < end * kTripleGroups; group += kTripleGroups) {
      __m256i sum[P][2];
      LookUp<P>(offsets, stride, tables, panel, group, sum);
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) {
        for (int half = 0; half < 2; ++half) {
          // Bytes wrap around; GatherCounts undoes that. The high nibbles move down as 16-bit lanes, without a mask.
          a[p][half] = _mm256_add_epi8(a[p][half], sum[p][half]);
          b[p][half] = _mm256_add_epi8(b[p][half], _mm256_srli_epi16(sum[p][half], 4));
          asm volatile("" : "+x"(a[p][half]), "+x"(b[p][half]));
        }
      }
    }
    for (int p = 0; p < P; ++p) {
      for (int half = 0; half < 2; ++half) sums[blocks][p][half] = {a[p][half], b[p][half]};
    }
  }
  for (int p = 0; p < P; ++p) GatherCounts(sums[0] + p, blocks, P, add, counts[p]);
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

// The bits of a panel of dot products: (dot > above) xor flip.
[[gnu::always_inline]] inline uint64_t PassedBits(const PanelDots& dots, const BinaryThresholds& thresholds,
                                                  size_t panel) {
  __m256i masks[4];
  for (size_t i = 0; i < 4; ++i) {
    const size_t n = panel * kBitPanel + i * 16;
    const __m256i passed = _mm256_cmpgt_epi16(dots.at[i], LoadInt(&thresholds.above[n]).v);
    masks[i] = _mm256_xor_si256(passed, LoadInt(&thresholds.flip[n]).v);
  }
  return PackMasks(masks);
}

// Counts of 32 outputs of a group to the order of its bytes: those of even bytes and those of odd ones, interleaved.
inline void StoreInterleaved(uint16_t* to, __m256i even, __m256i odd) {
  // Within 128-bit lanes: bytes 0-7 and 16-23, 8-15 and 24-31.
  const __m256i low = _mm256_unpacklo_epi16(even, odd), high = _mm256_unpackhi_epi16(even, odd);
  StoreInt(to, {_mm256_permute2x128_si256(low, high, 0x20)});
  StoreInt(to + 16, {_mm256_permute2x128_si256(low, high, 0x31)});
}

// These as the parameter of what several ISAs share.
struct Avx2Bits {
  static constexpr int kPairs = 2;  // of rows, counted together
  using Counts = PairCounts;        // of a pair of rows and the outputs of a panel
  using Dots = PanelDots;           // of one row

  // Groups to kUnpackedGroup bytes each.
  static void UnpackPanel(const uint8_t* packed, size_t groups, uint8_t* panel) {
    for (size_t g = 0; g < groups; ++g) {
      const Nibbles nibbles = PackedPanel{packed}.Load(g);
      StoreInt(panel + g * kUnpackedGroup, {nibbles.half[0]});
      StoreInt(panel + g * kUnpackedGroup + 32, {nibbles.half[1]});
    }
  }
  // Of one pair, from the packed panel; of P pairs, from the unpacked one.
  [[gnu::always_inline]] static void CountPacked(const uint16_t* offsets, const PairTables& tables,
                                                 const uint8_t* packed, size_t triples, bool add, Counts* counts) {
    avx2::CountPairs<1>(offsets, 0, tables, PackedPanel{packed}, triples, add, counts);
  }
  template <int P>
  [[gnu::always_inline]] static void CountPairs(const uint16_t* offsets, size_t stride, const PairTables& tables,
                                                const uint8_t* panel, size_t triples, bool add, Counts* counts) {
    avx2::CountPairs<P>(offsets, stride, tables, UnpackedPanel{panel}, triples, add, counts);
  }
  // Of row 0 or 1 of a pair.
  [[gnu::always_inline]] static Dots DotsOf(const Counts& counts, size_t row, int base, int step) {
    return avx2::DotsOf(counts.rows[row], base, step);
  }
  [[gnu::always_inline]] static uint64_t PassedBits(const Dots& dots, const BinaryThresholds& thresholds,
                                                    size_t panel) {
    return avx2::PassedBits(dots, thresholds, panel);
  }
  // 64 numbers in the order of outputs.
  static void Store(const Dots& dots, int16_t* to) { __builtin_memcpy(to, &dots, sizeof(dots)); }
  // 64 numbers in the order of the bytes of a group, as panels of keys have them.
  static void StoreCounts(const Counts& counts, size_t row, uint16_t* to) {
    const __m256i* found = counts.rows[row];
    StoreInterleaved(to, found[0], found[1]);
    StoreInterleaved(to + 32, found[2], found[3]);
  }
  // Of the two rows of each of P pairs, which bytes of the groups of a panel have a count of at most `most`.
  //
  // Bytes suffice: where a sum saturates, at 255, it is above a limit of at most 254, and within the limit 255 that
  // stands for all 256.
  template <int P>
  [[gnu::always_inline]] static void CountsWithin(const uint16_t* offsets, size_t stride, const PairTables& tables,
                                                  const uint8_t* panel, size_t triples, size_t most,
                                                  uint64_t (&bits)[2 * P]) {
    const __m256i low_nibbles = _mm256_set1_epi8(15);
    const __m256i limit = _mm256_set1_epi8(static_cast<char>(most < 255 ? most : 255));
    __m256i counts[2 * P][2];
    for (auto& row : counts) row[0] = row[1] = _mm256_setzero_si256();
    for (size_t t = 0; t < triples; ++t) {
      __m256i sum[P][2];
      LookUp<P>(offsets, stride, tables, UnpackedPanel{panel}, t * kTripleGroups, sum);
#pragma GCC unroll 2
      for (int pair = 0; pair < P; ++pair) {
        for (int half = 0; half < 2; ++half) {
          __m256i &first = counts[2 * pair][half], &second = counts[2 * pair + 1][half];
          const __m256i high = _mm256_srli_epi16(sum[pair][half], 4);
          first = _mm256_adds_epu8(first, _mm256_and_si256(sum[pair][half], low_nibbles));
          second = _mm256_adds_epu8(second, _mm256_and_si256(high, low_nibbles));
          asm volatile("" : "+x"(first), "+x"(second));
        }
      }
    }
    const auto within = [&](__m256i x) {
      return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(x, limit), x)));
    };
    for (int r = 0; r < 2 * P; ++r) bits[r] = within(counts[r][0]) | uint64_t{within(counts[r][1])} << 32;
  }
};

}  // namespace
}  // namespace bitpress::avx2
