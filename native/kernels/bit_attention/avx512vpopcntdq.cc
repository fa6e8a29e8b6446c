// Heads of up to 64 dimensions; larger ones look nibbles up (avx512vnni.cc).
//
// Scores: a register has a byte, eight dimensions, of each of 64 keys. A xor with a query's byte, `vpopcntb` and an
// addition are 512 products, and the sums of mismatches are bytes in order of the keys, to be compared at once.
// Contexts: a linear layer (simd/avx512_word_counts.h) of zeros and ones, with the values as weights: their bits are
// turned to a panel, of which the columns are the outputs and the keys the inputs.
#include "kernels/bit_attention/align_rows.h"
#include "kernels/bit_attention/scratch.h"
#include "kernels/simd/avx512_word_counts.h"

namespace bitpress::avx512vpopcntdq {
namespace {

constexpr size_t kKeys = kBitPanel;                    // of a panel
constexpr size_t kRowBytes = kMaxBitWordHeadSize / 8;  // of a query, key or value
constexpr size_t kPanelBytes = kKeys * kRowBytes;
constexpr char kPaddingCount = -1;  // 255: more mismatches than a key has, and above every limit

// Byte s of each of 64 rows of 8 bytes, to 64 bytes at columns + 64 s.
void TransposeBytes(const uint8_t* rows, uint8_t* columns) {
  // Of eight rows: within 128 bits, byte s of both rows side by side; then these pairs of all four, so that each 64
  // bits are one byte of the eight rows.
  const __m512i pairs = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0F070E060D050C04, 0x0B030A0209010800));
  alignas(64) static constexpr uint16_t kEight[32] = {0, 8,  16, 24, 1, 9,  17, 25, 2, 10, 18, 26, 3, 11, 19, 27,
                                                      4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30, 7, 15, 23, 31};
  const __m512i eight = _mm512_load_si512(kEight);
  for (size_t r = 0; r < kKeys; r += 8) {
    const __m512i bytes = _mm512_shuffle_epi8(_mm512_loadu_si512(rows + r * 8), pairs);
    uint64_t of_eight[8];
    _mm512_storeu_si512(of_eight, _mm512_permutexvar_epi16(eight, bytes));
    for (size_t s = 0; s < 8; ++s) __builtin_memcpy(columns + s * kKeys + r, &of_eight[s], 8);
  }
}

// 64 rows of 8 bytes, transposed by TransposeBytes, to two BinaryWords: 32 rows each, of 64 columns.
void GroupValues(const uint8_t* columns, uint8_t* words) {
  for (size_t c = 0; c < kMaxBitWordHeadSize; ++c) {
    const __m512i bytes = _mm512_loadu_si512(columns + c / 8 * kKeys);
    const uint64_t keys = _mm512_test_epi8_mask(bytes, _mm512_set1_epi8(static_cast<char>(1 << c % 8)));
    for (size_t half = 0; half < 2; ++half) {
      const auto word = static_cast<uint32_t>(keys >> (32 * half));
      __builtin_memcpy(words + half * sizeof(BinaryWords) + c * sizeof(word), &word, sizeof(word));
    }
  }
}

void PackPanels(const BitHead& head, const BitWordBuffers& b) {
  AlignRows(head.query, head, RoundUp(head.tokens, kWordQueries), kRowBytes, b.queries);
  AlignRows(head.key, head, b.panels * kKeys, kRowBytes, b.rows);
  for (size_t p = 0; p < b.panels; ++p) TransposeBytes(b.rows + p * kPanelBytes, b.key_panels + p * kPanelBytes);
  AlignRows(head.value, head, b.panels * kKeys, kRowBytes, b.rows);
  for (size_t p = 0; p < b.panels; ++p) {
    uint8_t columns[kPanelBytes];
    TransposeBytes(b.rows + p * kPanelBytes, columns);
    GroupValues(columns, b.value_words + p * 2 * sizeof(BinaryWords));
  }
}

// Of a panel: those that are no padding.
__mmask64 RealKeys(const BitHead& head, size_t panel) {
  const size_t count = head.tokens - panel * kKeys;
  return count < kKeys ? (uint64_t{1} << count) - 1 : ~uint64_t{0};
}

// How many mismatches the keys of a panel have with each of four queries, in bytes; kPaddingCount past the last key.
[[gnu::always_inline]] inline void CountMismatches(const BitHead& head, const BitWordBuffers& b, size_t first_query,
                                                   size_t panel, __m512i (&counts)[4]) {
#define BITPRESS_FOR_FOUR _Pragma("GCC unroll 4") for (size_t q = 0; q < 4; ++q)  // so that counts are registers
  BITPRESS_FOR_FOUR counts[q] = _mm512_setzero_si512();
  for (size_t s = 0; s < BitRowBytes(head.head_size); ++s) {
    const __m512i keys = _mm512_loadu_si512(b.key_panels + panel * kPanelBytes + s * kKeys);
    BITPRESS_FOR_FOUR {
      const auto query = static_cast<char>(b.queries[(first_query + q) * kRowBytes + s]);
      const __m512i differ = _mm512_xor_si512(keys, _mm512_set1_epi8(query));
      counts[q] = _mm512_add_epi8(counts[q], _mm512_popcnt_epi8(differ));  // at most 64
    }
  }
  const __mmask64 real = RealKeys(head, panel);
  BITPRESS_FOR_FOUR counts[q] = _mm512_mask_mov_epi8(_mm512_set1_epi8(kPaddingCount), real, counts[q]);
}

__m512i Mismatches(const BitWordBuffers& b, size_t query, size_t panel) {
  return _mm512_load_si512(b.mismatches + (query * b.panels + panel) * kKeys);
}

unsigned Smallest(__m512i bytes) {
  const __m256i by32 = _mm256_min_epu8(_mm512_castsi512_si256(bytes), _mm512_extracti64x4_epi64(bytes, 1));
  const __m128i by16 = _mm_min_epu8(_mm256_castsi256_si128(by32), _mm256_extracti128_si256(by32, 1));
  // `vphminposuw` takes 16-bit lanes: of each the smaller byte.
  const __m128i by8 = _mm_min_epu8(_mm_and_si128(by16, _mm_set1_epi16(0xFF)), _mm_srli_epi16(by16, 8));
  return static_cast<unsigned>(_mm_cvtsi128_si32(_mm_minpos_epu16(by8))) & 0xFF;
}

// Numbers of keys, by how many mismatches more than the query's fewest they have: a lane of 64 bits a query.
constexpr size_t kLanes64 = 8;
struct alignas(64) KeyCounts {
  uint64_t of[kMaxBitWordHeadSize + 1][kWordQueries];
};
// Bit b of the numbers of mismatches of 64 keys: a lane a query, a bit a key.
struct Planes {
  __m512i of[7];
};

// Adds, of the keys in the sets of eight queries, those of each number below 2^kPlanes. Each plane halves the sets.
template <size_t kPlanes>
[[gnu::always_inline]] inline void CountEach(const Planes& planes, __m512i keys, uint64_t* counts) {
  if constexpr (kPlanes == 0) {
    _mm512_store_si512(counts, _mm512_add_epi64(_mm512_load_si512(counts), _mm512_popcnt_epi64(keys)));
  } else {
    const __m512i plane = planes.of[kPlanes - 1];
    CountEach<kPlanes - 1>(planes, _mm512_andnot_si512(plane, keys), counts);
    CountEach<kPlanes - 1>(planes, _mm512_and_si512(plane, keys), counts + (kWordQueries << (kPlanes - 1)));
  }
}
[[gnu::noinline]] void CountBelow32(const Planes& planes, __m512i keys, uint64_t* counts) {
  CountEach<5>(planes, keys, counts);
}

// Counts the keys of a panel for eight queries; whether there are any with 32 and more.
bool CountKeys(const Planes& planes, __m512i keys, uint64_t* counts) {
  const __m512i from64 = _mm512_and_si512(planes.of[6], keys);
  const __m512i from32 = _mm512_andnot_si512(from64, _mm512_and_si512(planes.of[5], keys));
  const __m512i high = _mm512_or_si512(from64, from32);
  CountBelow32(planes, _mm512_andnot_si512(high, keys), counts);
  if (_mm512_test_epi64_mask(high, high) == 0) return false;
  CountBelow32(planes, from32, counts + 32 * kWordQueries);
  CountEach<0>(planes, from64, counts + 64 * kWordQueries);
  return true;
}

// Of each of `queries` queries: it attends to the keys with fewer mismatches than this, by softmax (bit_attention.h).
//
// SoftmaxLimit of softmax_limit.h, but without a histogram that waits for its own stores: numbers of mismatches are
// turned to planes of bits, from which those of eight queries are counted together, and the totals of all queries are
// lanes of two registers.
void SoftmaxLimits(const BitHead& head, const AttendedKeys& keys, const BitWordBuffers& b, size_t queries,
                   size_t (&below)[kWordQueries]) {
  static_assert(kWordQueries == 2 * kLanes64, "two groups of lanes");
  for (size_t q = 0; q < queries; ++q) {
    __m512i smallest = Mismatches(b, q, 0);
    for (size_t p = 1; p < b.panels; ++p) smallest = _mm512_min_epu8(smallest, Mismatches(b, q, p));
    below[q] = Smallest(smallest);
  }
  KeyCounts counts;
  __builtin_memset(&counts, 0, sizeof(counts));
  bool is_wide = false;
  for (size_t group = 0; group < queries; group += kLanes64) {
    alignas(64) uint64_t bits[7][kLanes64] = {};
    const size_t end = queries - group < kLanes64 ? queries - group : kLanes64;
    for (size_t p = 0; p < b.panels; ++p) {
      for (size_t q = 0; q < end; ++q) {
        const __m512i fewest = _mm512_set1_epi8(static_cast<char>(below[group + q]));
        const __m512i more = _mm512_sub_epi8(Mismatches(b, group + q, p), fewest);
        for (size_t i = 0; i < 7; ++i) {
          bits[i][q] = _mm512_test_epi8_mask(more, _mm512_set1_epi8(static_cast<char>(1 << i)));
        }
      }
      Planes planes;
      for (size_t i = 0; i < 7; ++i) planes.of[i] = _mm512_load_si512(bits[i]);
      const __m512i real = _mm512_set1_epi64(static_cast<long long>(RealKeys(head, p)));
      is_wide |= CountKeys(planes, real, counts.of[0] + group);
    }
  }
  // As int32, of which each second one is zero. A number of mismatches that no key has adds +0, which changes no total.
  F32 totals[2] = {F32::Broadcast(0.0f), F32::Broadcast(0.0f)};
  const size_t all = head.head_size + 1, range = is_wide || all < 32 ? all : 32;
  for (size_t k = 0; k < range; ++k) {
    const F32 decay = F32::Broadcast(keys.decay[k]);
    for (size_t i = 0; i < 2; ++i) totals[i] = Fma(F32::FromInts(counts.of[k] + i * kLanes64), decay, totals[i]);
  }
  float total[2 * kWordQueries];
  for (size_t i = 0; i < 2; ++i) Store(total + i * F32::kCount, totals[i]);
  for (size_t q = 0; q < queries; ++q) {
    // A quotient never rises with the mismatches: the first that is too small ends the search.
    for (size_t k = 0; k <= head.head_size; k += F32::kCount) {
      const F32 quotient = F32::LoadFirst(keys.decay + k, head.head_size + 1 - k) / F32::Broadcast(total[2 * q]);
      const unsigned too_small = _mm512_cmp_ps_mask(quotient.v, _mm512_set1_ps(keys.least), _CMP_NGE_UQ);
      if (too_small != 0) {
        below[q] += static_cast<size_t>(__builtin_ctz(too_small));
        break;
      }
      below[q] += F32::kCount;
    }
  }
}

// Which keys each query attends to, into b.attended: those with fewer than `below` mismatches in a panel.
void Attend(const BitWordBuffers& b, size_t query, size_t panel, __m512i mismatches, size_t below) {
  const uint64_t bits = _mm512_cmplt_epu8_mask(mismatches, _mm512_set1_epi8(static_cast<char>(below)));
  __builtin_memcpy(b.attended + (query * b.panels + panel) * sizeof(bits), &bits, sizeof(bits));
}

void AttendWithin(const BitHead& head, size_t most, const BitWordBuffers& b) {
  const size_t below = (most < head.head_size ? most : head.head_size) + 1;
  for (size_t first = 0; first < head.tokens; first += 4) {
    for (size_t p = 0; p < b.panels; ++p) {
      __m512i counts[4];
      CountMismatches(head, b, first, p, counts);
      BITPRESS_FOR_FOUR Attend(b, first + q, p, counts[q], below);
    }
  }
}

void AttendBySoftmax(const BitHead& head, const AttendedKeys& keys, const BitWordBuffers& b) {
  for (size_t first = 0; first < head.tokens; first += kWordQueries) {
    const size_t queries = head.tokens - first < kWordQueries ? head.tokens - first : kWordQueries;
    for (size_t four = 0; four < queries; four += 4) {
      for (size_t p = 0; p < b.panels; ++p) {
        __m512i counts[4];
        CountMismatches(head, b, first + four, p, counts);
        BITPRESS_FOR_FOUR { _mm512_store_si512(b.mismatches + ((four + q) * b.panels + p) * kKeys, counts[q]); }
      }
    }
    // At most kMaxBitWordHeadSize and five registers of quotients: below kPaddingCount.
    size_t below[kWordQueries];
    SoftmaxLimits(head, keys, b, queries, below);
    for (size_t q = 0; q < queries; ++q) {
      for (size_t p = 0; p < b.panels; ++p) Attend(b, first + q, p, Mismatches(b, q, p), below[q]);
    }
  }
}

#undef BITPRESS_FOR_FOUR

// write(token, dots) for every token.
template <class Write>
[[gnu::always_inline]] inline void ForContexts(const BitHead& head, const AttendedKeys& keys, void* scratch,
                                               const Write& write) {
  size_t bytes;
  const BitWordBuffers b = LayOutBitWords(scratch, head.tokens, &bytes);
  PackPanels(head, b);
  if (keys.decay == nullptr) {
    AttendWithin(head, keys.most, b);
  } else {
    AttendBySoftmax(head, keys, b);
  }
  const size_t row = b.panels * kKeys / 8;
  ForDotsOf<BitSet::kZeroOne>(
      b.attended, row, head.tokens, b.value_words, row / sizeof(uint32_t),
      [&](size_t r) { return BaseOf(BitSet::kZeroOne, head.tokens, CountOnes(b.attended + r * row, row)); }, write);
}

}  // namespace

void BitAttention(const BitHead& head, const AttendedKeys& keys, int16_t* context, size_t context_stride,
                  void* scratch) {
  if (head.head_size > kMaxBitWordHeadSize) {
    return avx512vnni::BitAttention(head, keys, context, context_stride, scratch);
  }
  ForContexts(head, keys, scratch, [&](size_t token, const PanelDots& dots) {
    int32_t ordered[kBitPanel];
    __builtin_memcpy(ordered, &dots, sizeof(dots));
    int16_t* to = context + token * context_stride;
    for (size_t c = 0; c < head.head_size; ++c) to[c] = static_cast<int16_t>(ordered[c]);  // <= kMaxBinaryInputs
  });
}

void BitAttentionBits(const BitHead& head, const AttendedKeys& keys, const BinaryThresholds& thresholds, uint8_t* bits,
                      size_t bits_stride, void* scratch) {
  if (head.head_size > kMaxBitWordHeadSize) {
    return avx512vnni::BitAttentionBits(head, keys, thresholds, bits, bits_stride, scratch);
  }
  const PanelThresholds of_head(thresholds, 0);
  ForContexts(head, keys, scratch, [&](size_t token, const PanelDots& dots) {
    const uint64_t passed = of_head.PassedBits(dots);
    __builtin_memcpy(bits + token * bits_stride, &passed, BitRowBytes(head.head_size));
  });
}

}  // namespace bitpress::avx512vpopcntdq
