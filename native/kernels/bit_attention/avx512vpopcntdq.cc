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
  AlignRows(head.query, head, RoundUp(head.tokens, kBitQueries), kRowBytes, b.queries);
  AlignRows(head.key, head, b.panels * kKeys, kRowBytes, b.rows);
  for (size_t p = 0; p < b.panels; ++p) TransposeBytes(b.rows + p * kPanelBytes, b.key_panels + p * kPanelBytes);
  AlignRows(head.value, head, b.panels * kKeys, kRowBytes, b.rows);
  for (size_t p = 0; p < b.panels; ++p) {
    uint8_t columns[kPanelBytes];
    TransposeBytes(b.rows + p * kPanelBytes, columns);
    GroupValues(columns, b.value_words + p * 2 * sizeof(BinaryWords));
  }
}

// How many mismatches the keys of a panel have with each of kBitQueries queries, in bytes; kPaddingCount past the last
// key.
void CountMismatches(const BitHead& head, const BitWordBuffers& b, size_t first_query, size_t panel,
                     __m512i (&counts)[kBitQueries]) {
  for (__m512i& count : counts) count = _mm512_setzero_si512();
  for (size_t s = 0; s < BitRowBytes(head.head_size); ++s) {
    const __m512i keys = _mm512_loadu_si512(b.key_panels + panel * kPanelBytes + s * kKeys);
#pragma GCC unroll 4
    for (size_t q = 0; q < kBitQueries; ++q) {
      const auto query = static_cast<char>(b.queries[(first_query + q) * kRowBytes + s]);
      const __m512i differ = _mm512_xor_si512(keys, _mm512_set1_epi8(query));
      counts[q] = _mm512_add_epi8(counts[q], _mm512_popcnt_epi8(differ));  // at most 64
    }
  }
  const size_t rest = head.tokens - panel * kKeys;
  if (rest >= kKeys) return;
  for (__m512i& count : counts) {
    count = _mm512_mask_mov_epi8(_mm512_set1_epi8(kPaddingCount), (uint64_t{1} << rest) - 1, count);
  }
}

unsigned Smallest(__m512i bytes) {
  const __m256i by32 = _mm256_min_epu8(_mm512_castsi512_si256(bytes), _mm512_extracti64x4_epi64(bytes, 1));
  const __m128i by16 = _mm_min_epu8(_mm256_castsi256_si128(by32), _mm256_extracti128_si256(by32, 1));
  // `vphminposuw` takes 16-bit lanes: of each the smaller byte.
  const __m128i by8 = _mm_min_epu8(_mm_and_si128(by16, _mm_set1_epi16(0xFF)), _mm_srli_epi16(by16, 8));
  return static_cast<unsigned>(_mm_cvtsi128_si32(_mm_minpos_epu16(by8))) & 0xFF;
}

// The query attends to the keys with fewer mismatches than this, by softmax (bit_attention.h). mismatches: those of all
// panels. SoftmaxLimit of softmax_limit.h, but with comparisons of many keys for a histogram.
size_t SoftmaxLimit(const BitHead& head, const AttendedKeys& keys, const uint8_t* mismatches, size_t panels) {
  const auto load = [&](size_t p) { return _mm512_load_si512(mismatches + p * kKeys); };
  __m512i smallest = load(0);
  for (size_t p = 1; p < panels; ++p) smallest = _mm512_min_epu8(smallest, load(p));
  const size_t fewest = Smallest(smallest);
  float total = 0.0f;
  // A number of mismatches that no key has adds +0, which changes no total, nor would those past the last key's.
  for (size_t m = fewest, counted = 0; counted < head.tokens; ++m) {
    size_t count = 0;
    for (size_t p = 0; p < panels; ++p) {
      const __mmask64 same = _mm512_cmpeq_epi8_mask(load(p), _mm512_set1_epi8(static_cast<char>(m)));
      count += static_cast<size_t>(__builtin_popcountll(same));
    }
    total = __builtin_fmaf(static_cast<float>(count), keys.decay[m - fewest], total);
    counted += count;
  }
  // A quotient never rises with the mismatches: the first that is too small ends the search.
  for (size_t k = 0; k <= head.head_size; k += F32::kCount) {
    const F32 quotient = F32::LoadFirst(keys.decay + k, head.head_size + 1 - k) / F32::Broadcast(total);
    const unsigned too_small = _mm512_cmp_ps_mask(quotient.v, _mm512_set1_ps(keys.least), _CMP_NGE_UQ);
    if (too_small != 0) return fewest + k + static_cast<size_t>(__builtin_ctz(too_small));
  }
  return head.head_size + 1;
}

// Which keys each query attends to, into b.attended.
void Attend(const BitHead& head, const AttendedKeys& keys, const BitWordBuffers& b) {
  const size_t most = keys.most < head.head_size ? keys.most : head.head_size;
  for (size_t first = 0; first < head.tokens; first += kBitQueries) {
    for (size_t p = 0; p < b.panels; ++p) {
      __m512i counts[kBitQueries];
      CountMismatches(head, b, first, p, counts);
      for (size_t q = 0; q < kBitQueries; ++q) {
        _mm512_store_si512(b.mismatches + (q * b.panels + p) * kKeys, counts[q]);
      }
    }
    for (size_t q = 0; q < kBitQueries && first + q < head.tokens; ++q) {
      const uint8_t* mismatches = b.mismatches + q * b.panels * kKeys;
      // At most twice kMaxBitWordHeadSize and a register of quotients: below kPaddingCount.
      const size_t below = keys.decay == nullptr ? most + 1 : SoftmaxLimit(head, keys, mismatches, b.panels);
      for (size_t p = 0; p < b.panels; ++p) {
        const uint64_t bits = _mm512_cmplt_epu8_mask(_mm512_load_si512(mismatches + p * kKeys),
                                                     _mm512_set1_epi8(static_cast<char>(below)));
        __builtin_memcpy(b.attended + ((first + q) * b.panels + p) * sizeof(bits), &bits, sizeof(bits));
      }
    }
  }
}

// write(token, dots) for every token.
template <class Write>
[[gnu::always_inline]] inline void ForContexts(const BitHead& head, const AttendedKeys& keys, void* scratch,
                                               const Write& write) {
  size_t bytes;
  const BitWordBuffers b = LayOutBitWords(scratch, head.tokens, &bytes);
  PackPanels(head, b);
  Attend(head, keys, b);
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
