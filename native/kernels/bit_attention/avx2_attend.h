// Both products by the table look-up of simd/avx2_bit_counts.h, four queries at a time: the scores are dot products of
// signs with the keys as weights, the context is one of zeros and ones with the values as weights. Keys and values are
// first written as nibbles. How bits are counted is a parameter: Avx2Bits, or another with its members.
#pragma once

#include "kernels/bit_attention/align_rows.h"
#include "kernels/bit_attention/scratch.h"
#include "kernels/bit_attention/softmax_limit.h"
#include "kernels/simd/avx2_bit_counts.h"

namespace bitpress::avx2 {
namespace {

// Eight bytes of each of 32 rows to 16 groups of one nibble a row, in order of the rows; those below group_count,
// kUnpackedGroup apart.
void TransposeKeys(const uint8_t* rows, size_t row_bytes, size_t group_count, uint8_t* groups) {
  const auto load = [&](size_t row) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(rows + row * row_bytes));
  };
  const auto pair = [&](size_t row) { return _mm_unpacklo_epi8(load(row), load(row + 1)); };
  // 16-bit items: byte j of the rows 2 i and 2 i + 1; rows 0-15 in the low and 16-31 in the high half.
  __m256i x[8], y[8];
  for (size_t i = 0; i < 8; ++i) {
    x[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(pair(2 * i)), pair(16 + 2 * i), 1);
  }
  // The transposition of both 8 x 8 halves, by items of 16, 32 and 64 bits.
  for (int i = 0; i < 4; ++i) {
    y[i] = _mm256_unpacklo_epi16(x[2 * i], x[2 * i + 1]);
    y[4 + i] = _mm256_unpackhi_epi16(x[2 * i], x[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = _mm256_unpacklo_epi32(y[2 * i], y[2 * i + 1]);
    x[2 * i + 1] = _mm256_unpackhi_epi32(y[2 * i], y[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    for (int k = 0; k < 2; ++k) {
      y[4 * i + 2 * k] = _mm256_unpacklo_epi64(x[4 * i + k], x[4 * i + 2 + k]);
      y[4 * i + 2 * k + 1] = _mm256_unpackhi_epi64(x[4 * i + k], x[4 * i + 2 + k]);
    }
  }
  const __m256i low_nibbles = _mm256_set1_epi8(15);
  for (size_t j = 0; j < 8; ++j) {
    if (2 * j < group_count) StoreInt(groups + 2 * j * kUnpackedGroup, {_mm256_and_si256(y[j], low_nibbles)});
    if (2 * j + 1 < group_count) {
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(y[j], 4), low_nibbles);
      StoreInt(groups + (2 * j + 1) * kUnpackedGroup, {high});
    }
  }
}

// Bit c of four rows to the nibble of column c (layout.h), for 32 columns.
__m256i GroupValues(const uint8_t* rows, size_t row_bytes) {
  // Byte b is column b / 2 + 16 (b % 2): the byte of four it lies in, and its bit there.
  const __m256i source =
      _mm256_set_epi64x(0x0301030103010301, 0x0301030103010301, 0x0200020002000200, 0x0200020002000200);
  const __m256i bit = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x8080404020201010, 0x0808040402020101));
  __m256i nibbles = _mm256_setzero_si256();
  for (int t = 0; t < 4; ++t) {
    const __m256i bytes = _mm256_shuffle_epi8(BroadcastWord(rows + static_cast<size_t>(t) * row_bytes), source);
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    nibbles = _mm256_or_si256(nibbles, _mm256_and_si256(set, _mm256_set1_epi8(static_cast<char>(1 << t))));
  }
  return nibbles;
}

void PackPanels(const BitHead& head, const BitAttentionBuffers& b) {
  const size_t head_groups = b.head_triples * kTripleGroups, token_groups = b.token_triples * kTripleGroups;
  AlignRows(head.query, head, RoundUp(head.tokens, kBitQueries), b.row_bytes, b.queries);
  AlignRows(head.key, head, b.token_panels * kBitPanel, b.row_bytes, b.keys);
  AlignRows(head.value, head, token_groups * kGroupInputs, b.row_bytes, b.values);
  for (size_t half = 0; half < 2 * b.token_panels; ++half) {
    uint8_t* panel = b.key_panels + half / 2 * head_groups * kUnpackedGroup + half % 2 * 32;
    for (size_t group = 0; group < head_groups; group += 16) {
      TransposeKeys(b.keys + half * 32 * b.row_bytes + group / 2, b.row_bytes, head_groups - group,
                    panel + group * kUnpackedGroup);
    }
  }
  for (size_t p = 0; p < b.head_panels; ++p) {
    for (size_t group = 0; group < token_groups; ++group) {
      const uint8_t* rows = b.values + group * kGroupInputs * b.row_bytes + p * 8;
      uint8_t* out = b.value_panels + (p * token_groups + group) * kUnpackedGroup;
      StoreInt(out, {GroupValues(rows, b.row_bytes)});
      StoreInt(out + 32, {GroupValues(rows + 4, b.row_bytes)});
    }
  }
}

constexpr int kPairs = kBitQueries / 2;

void FindQueryOffsets(const BitAttentionBuffers& b, size_t begin) {
  const size_t stride = OffsetStride(b.head_triples);
  for (size_t pair = 0; pair < kPairs; ++pair) {
    const uint8_t* first = b.queries + (begin + 2 * pair) * b.row_bytes;
    PairOffsets(first, first + b.row_bytes, b.row_bytes, stride, b.query_offsets + pair * stride);
  }
}

const uint8_t* KeyPanel(const BitAttentionBuffers& b, size_t panel) {
  return b.key_panels + panel * b.head_triples * kTripleGroups * kUnpackedGroup;
}

// Bits of a panel's keys: those that are no padding.
uint64_t RealKeys(const BitHead& head, size_t panel) {
  const size_t count = head.tokens - panel * kBitPanel;
  return count < kBitPanel ? (uint64_t{1} << count) - 1 : ~uint64_t{0};
}

// Which keys the kBitQueries queries from `begin` on attend to, into b.attended: those with at most `most` mismatches.
template <class Bits>
void AttendWithin(const BitHead& head, size_t most, const BitAttentionBuffers& b, size_t begin) {
  FindQueryOffsets(b, begin);
  for (size_t p = 0; p < b.token_panels; ++p) {
    uint64_t within[kBitQueries];
    Bits::template CountsWithin<kPairs>(b.query_offsets, OffsetStride(b.head_triples), TablesFor(BitSet::kSigns),
                                        KeyPanel(b, p), b.head_triples, most, within);
    for (size_t r = 0; r < kBitQueries; ++r) {
      const uint64_t bits = within[r] & RealKeys(head, p);
      __builtin_memcpy(b.attended + (begin + r) * b.attended_row + p * 8, &bits, sizeof(bits));
    }
  }
}

// The same by softmax: the mismatches of all keys first, then the limit that they give each query.
template <class Bits>
[[gnu::noinline]] void AttendBySoftmax(const BitHead& head, const AttendedKeys& rule, const BitAttentionBuffers& b,
                                       size_t begin) {
  static_assert(TriplesFor(kMaxBitHeadSize) <= kDepthTriples, "one call counts all mismatches of a panel");
  FindQueryOffsets(b, begin);
  const size_t stride = OffsetStride(b.head_triples), keys = b.token_panels * kBitPanel;
  for (size_t p = 0; p < b.token_panels; ++p) {
    typename Bits::Counts counts[kPairs];
    Bits::template CountPairs<kPairs>(b.query_offsets, stride, TablesFor(BitSet::kSigns), KeyPanel(b, p),
                                      b.head_triples, false, counts);
    for (size_t r = 0; r < kBitQueries; ++r) {
      Bits::StoreCounts(counts[r / 2], r % 2, b.mismatches + r * keys + p * kBitPanel);
    }
  }
  for (size_t r = 0; r < kBitQueries && begin + r < head.tokens; ++r) {
    const uint16_t* mismatches = b.mismatches + r * keys;
    const unsigned below = SoftmaxLimit(mismatches, head.tokens, head.head_size, rule);
    const __m256i limit = _mm256_set1_epi16(static_cast<int16_t>(below));
    for (size_t p = 0; p < b.token_panels; ++p) {
      __m256i masks[4];
      for (size_t i = 0; i < 4; ++i) {
        masks[i] = _mm256_cmpgt_epi16(limit, LoadInt(mismatches + p * kBitPanel + 16 * i).v);
      }
      const uint64_t bits = PackMasks(masks) & RealKeys(head, p);
      __builtin_memcpy(b.attended + (begin + r) * b.attended_row + p * 8, &bits, sizeof(bits));
    }
  }
}

// write(token, panel, dots) for every token and panel of head dimensions.
template <class Bits, class Write>
[[gnu::always_inline]] inline void ForContexts(const BitHead& head, const AttendedKeys& keys, void* scratch,
                                               Write write) {
  size_t bytes;
  const BitAttentionBuffers b = LayOutBitAttention(scratch, head.tokens, head.head_size, &bytes);
  PackPanels(head, b);
  __builtin_memset(b.attended, 0, RoundUp(head.tokens, kBitQueries) * b.attended_row);
  // All queries before the first context: rows of bits are stored by 8 bytes and loaded by 16, which waits for a store
  // that is still under way.
  for (size_t begin = 0; begin < head.tokens; begin += kBitQueries) {
    if (keys.decay == nullptr) {
      AttendWithin<Bits>(head, keys.most, b, begin);
    } else {
      AttendBySoftmax<Bits>(head, keys, b, begin);
    }
  }
  const size_t stride = OffsetStride(b.token_triples);
  for (size_t begin = 0; begin < head.tokens; begin += kBitQueries) {
    const uint8_t* attended = b.attended + begin * b.attended_row;
    int ones[kBitQueries] = {};
    for (size_t r = 0; r < kBitQueries; ++r) {
      for (size_t p = 0; p < b.token_panels; ++p) {
        uint64_t word;
        __builtin_memcpy(&word, attended + r * b.attended_row + p * 8, sizeof(word));
        ones[r] += __builtin_popcountll(word);
      }
    }
    for (size_t pair = 0; pair < kBitQueries / 2; ++pair) {
      const uint8_t* first = attended + 2 * pair * b.attended_row;
      PairOffsets(first, first + b.attended_row, b.attended_row, stride, b.attended_offsets + pair * stride);
    }
    for (size_t p = 0; p < b.head_panels; ++p) {
      typename Bits::Counts counts[kPairs];
      for (size_t t = 0; t < b.token_triples; t += kDepthTriples) {
        const size_t triples = b.token_triples - t < kDepthTriples ? b.token_triples - t : kDepthTriples;
        const size_t group = t * kTripleGroups;
        const uint8_t* values = b.value_panels + (p * b.token_triples * kTripleGroups + group) * kUnpackedGroup;
        Bits::template CountPairs<kPairs>(b.attended_offsets + group, stride, TablesFor(BitSet::kZeroOne), values,
                                          triples, t > 0, counts);
      }
      for (size_t r = 0; r < kBitQueries && begin + r < head.tokens; ++r) {
        write(begin + r, p, Bits::DotsOf(counts[r / 2], r % 2, -ones[r], kZeroOneStep));
      }
    }
  }
}

template <class Bits>
void Attend(const BitHead& head, const AttendedKeys& keys, int16_t* context, size_t context_stride, void* scratch) {
  ForContexts<Bits>(head, keys, scratch, [&](size_t token, size_t panel, const typename Bits::Dots& dots) {
    int16_t ordered[kBitPanel];
    Bits::Store(dots, ordered);
    const size_t column = panel * kBitPanel;
    const size_t columns = head.head_size - column < kBitPanel ? head.head_size - column : kBitPanel;
    __builtin_memcpy(context + token * context_stride + column, ordered, columns * sizeof(int16_t));
  });
}

template <class Bits>
void AttendToBits(const BitHead& head, const AttendedKeys& keys, const BinaryThresholds& thresholds, uint8_t* bits,
                  size_t bits_stride, void* scratch) {
  ForContexts<Bits>(head, keys, scratch, [&](size_t token, size_t panel, const typename Bits::Dots& dots) {
    const uint64_t word = Bits::PassedBits(dots, thresholds, panel);
    const size_t rest = BitRowBytes(head.head_size) - panel * 8;
    __builtin_memcpy(bits + token * bits_stride + panel * 8, &word, rest < 8 ? rest : 8);
  });
}

}  // namespace
}  // namespace bitpress::avx2
