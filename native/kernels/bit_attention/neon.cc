// Both products by the table look-up of simd/neon_bit_counts.h, two queries at a time: the scores are dot products of
// signs with the keys as weights, the context is one of zeros and ones with the values as weights. Keys and values are
// first packed as weights are (binary_linear/layout.h).
#include "kernels/bit_attention/align_rows.h"
#include "kernels/bit_attention/scratch.h"
#include "kernels/bit_attention/softmax_limit.h"
#include "kernels/simd/neon_bit_counts.h"

namespace bitpress::neondot {
namespace {

static_assert(sizeof(BinaryGroup) <= kBitPanel, "scratch.h has room for a byte where a nibble is packed");

// Two groups of a panel from byte `at` of 64 rows.
void PackKeyGroups(const uint8_t* rows, size_t row_bytes, uint8_t* even, uint8_t* odd) {
  for (size_t n = 0; n < kBitPanel / 2; ++n) {
    const unsigned low = rows[n * row_bytes], high = rows[(n + kBitPanel / 2) * row_bytes];
    const size_t byte = PositionInGroup(n).byte;
    even[byte] = static_cast<uint8_t>((low & 15) | high << 4);
    if (odd != nullptr) odd[byte] = static_cast<uint8_t>(low >> 4 | (high & 0xF0));
  }
}

// The group of four rows and 64 columns: bit c of the rows is the nibble of column c.
void PackValueGroup(const uint8_t* rows, size_t row_bytes, uint8_t* group) {
  // In each half of a group, byte 2 i is column i and byte 2 i + 1 column 16 + i (and 32 more in the high nibbles):
  // the byte of a row that it lies in, for the first half one less than for the second.
  const uint8x16_t source = {0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2};
  const uint8x16_t bit = {1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128};
  for (unsigned half = 0; half < 2; ++half) {
    uint8x16_t nibbles = vdupq_n_u8(0);
    for (size_t t = 0; t < kGroupInputs; ++t) {
      const uint8x16_t row = vcombine_u8(vld1_u8(rows + t * row_bytes), vdup_n_u8(0));
      const uint8x16_t at = vaddq_u8(source, vdupq_n_u8(static_cast<uint8_t>(half)));
      const uint8x16_t low = vtstq_u8(vqtbl1q_u8(row, at), bit);
      const uint8x16_t high = vtstq_u8(vqtbl1q_u8(row, vaddq_u8(at, vdupq_n_u8(4))), bit);
      nibbles = vorrq_u8(nibbles, vandq_u8(low, vdupq_n_u8(static_cast<uint8_t>(1 << t))));
      nibbles = vorrq_u8(nibbles, vandq_u8(high, vdupq_n_u8(static_cast<uint8_t>(16 << t))));
    }
    vst1q_u8(group + 16 * half, nibbles);
  }
}

void PackPanels(const BitHead& head, const BitAttentionBuffers& b) {
  const size_t head_groups = b.head_triples * kTripleGroups, token_groups = b.token_triples * kTripleGroups;
  AlignRows(head.query, head, RoundUp(head.tokens, kBitQueries), b.row_bytes, b.queries);
  AlignRows(head.key, head, b.token_panels * kBitPanel, b.row_bytes, b.keys);
  AlignRows(head.value, head, token_groups * kGroupInputs, b.row_bytes, b.values);
  for (size_t p = 0; p < b.token_panels; ++p) {
    for (size_t group = 0; group < head_groups; group += 2) {
      uint8_t* even = b.key_panels + (p * head_groups + group) * sizeof(BinaryGroup);
      uint8_t* odd = group + 1 < head_groups ? even + sizeof(BinaryGroup) : nullptr;
      PackKeyGroups(b.keys + p * kBitPanel * b.row_bytes + group / 2, b.row_bytes, even, odd);
    }
  }
  for (size_t p = 0; p < b.head_panels; ++p) {
    for (size_t group = 0; group < token_groups; ++group) {
      PackValueGroup(b.values + group * kGroupInputs * b.row_bytes + p * (kBitPanel / 8), b.row_bytes,
                     b.value_panels + (p * token_groups + group) * sizeof(BinaryGroup));
    }
  }
}

// Which keys of panel p have fewer mismatches than `below`, one bit a key, to that panel's bits.
void StoreAttended(const BitHead& head, size_t p, const uint16x8_t* mismatches, unsigned below, uint8_t* attended) {
  const uint16x8_t limit = vdupq_n_u16(static_cast<uint16_t>(below));
  const uint16x8_t bit = {1, 2, 4, 8, 16, 32, 64, 128};
  const size_t count = head.tokens - p * kBitPanel;
  for (size_t i = 0; i < kBitPanel / 8 && i * 8 < count; ++i) {
    const unsigned real = count - i * 8 < 8 ? (1u << (count - i * 8)) - 1 : 255u;
    const uint16x8_t found = vandq_u16(vcltq_u16(mismatches[i], limit), bit);
    attended[i] = static_cast<uint8_t>(vaddvq_u16(found) & real);
  }
}

// Which keys the queries `first` and `first` + 1 attend to. By softmax the mismatches of all keys come first.
void Attend(const BitHead& head, const AttendedKeys& keys, const BitAttentionBuffers& b, size_t first) {
  const uint8_t* query = b.queries + first * b.row_bytes;
  PairOffsets(query, query + b.row_bytes, b.row_bytes, b.head_triples * kTripleGroups, b.query_offsets);
  const auto attended = [&](size_t r, size_t p) {
    return b.attended + (first + r) * b.attended_row + p * (kBitPanel / 8);
  };
  const size_t stride = b.token_panels * kBitPanel;
  for (size_t p = 0; p < b.token_panels; ++p) {
    Counts mismatches[2];
    CountPair(b.key_panels + p * b.head_triples * kTripleGroups * sizeof(BinaryGroup), b.query_offsets,
              TablesFor(BitSet::kSigns), b.head_triples, mismatches);
    for (size_t r = 0; r < 2; ++r) {
      if (keys.decay == nullptr) {
        StoreAttended(head, p, mismatches[r].at, static_cast<unsigned>(keys.most) + 1, attended(r, p));
        continue;
      }
      uint16_t* to = b.mismatches + r * stride + p * kBitPanel;
      for (size_t i = 0; i < kBitPanel / 8; ++i) vst1q_u16(to + 8 * i, mismatches[r].at[i]);
    }
  }
  if (keys.decay == nullptr) return;
  for (size_t r = 0; r < 2 && first + r < head.tokens; ++r) {
    const uint16_t* row = b.mismatches + r * stride;
    const unsigned below = SoftmaxLimit(row, head.tokens, head.head_size, keys);
    for (size_t p = 0; p < b.token_panels; ++p) {
      uint16x8_t mismatches[kBitPanel / 8];
      for (size_t i = 0; i < kBitPanel / 8; ++i) mismatches[i] = vld1q_u16(row + p * kBitPanel + 8 * i);
      StoreAttended(head, p, mismatches, below, attended(r, p));
    }
  }
}

// write(token, panel, dots) for every token and panel of head dimensions.
template <class Write>
void ForContexts(const BitHead& head, const AttendedKeys& keys, void* scratch, Write write) {
  size_t bytes;
  const BitAttentionBuffers b = LayOutBitAttention(scratch, head.tokens, head.head_size, &bytes);
  PackPanels(head, b);
  __builtin_memset(b.attended, 0, RoundUp(head.tokens, kBitQueries) * b.attended_row);
  for (size_t first = 0; first < head.tokens; first += 2) {
    Attend(head, keys, b, first);
    const uint8_t* attended = b.attended + first * b.attended_row;
    PairOffsets(attended, attended + b.attended_row, b.attended_row, b.token_triples * kTripleGroups,
                b.attended_offsets);
    for (size_t p = 0; p < b.head_panels; ++p) {
      Counts counts[2];
      CountPair(b.value_panels + p * b.token_triples * kTripleGroups * sizeof(BinaryGroup), b.attended_offsets,
                TablesFor(BitSet::kZeroOne), b.token_triples, counts);
      for (size_t r = 0; r < 2 && first + r < head.tokens; ++r) {
        const auto ones = static_cast<int>(CountOnes(attended + r * b.attended_row, b.attended_row));
        write(first + r, p, DotsOf(counts[r], -ones, kZeroOneStep));
      }
    }
  }
}

}  // namespace

void BitAttention(const BitHead& head, const AttendedKeys& keys, int16_t* context, size_t context_stride,
                  void* scratch) {
  ForContexts(head, keys, scratch, [&](size_t token, size_t panel, const PanelDots& dots) {
    const size_t column = panel * kBitPanel;
    const size_t columns = head.head_size - column < kBitPanel ? head.head_size - column : kBitPanel;
    int16_t all[kBitPanel];
    for (size_t i = 0; i < kBitPanel / 8; ++i) vst1q_s16(all + 8 * i, dots.at[i]);
    __builtin_memcpy(context + token * context_stride + column, all, columns * sizeof(int16_t));
  });
}

void BitAttentionBits(const BitHead& head, const AttendedKeys& keys, const BinaryThresholds& thresholds, uint8_t* bits,
                      size_t bits_stride, void* scratch) {
  ForContexts(head, keys, scratch, [&](size_t token, size_t panel, const PanelDots& dots) {
    uint8_t* to = bits + token * bits_stride + panel * (kBitPanel / 8);
    const size_t rest = BitRowBytes(head.head_size) - panel * (kBitPanel / 8);
    for (size_t i = 0; i < kBitPanel / 8 && i < rest; ++i) {
      const size_t n = panel * kBitPanel + i * 8;
      to[i] = PassedBits(dots.at[i], &thresholds.above[n], &thresholds.flip[n]);
    }
  });
}

}  // namespace bitpress::neondot
