// Slow reference: every score and every sum from single bits.
#include <algorithm>

#include "kernels/bit_attention/bit_attention.h"

namespace bitpress::reference {
namespace {

int Sign(const uint8_t* rows, const BitHead& head, size_t token, size_t c) {
  const size_t bit = head.first_bit + c;
  return rows[token * head.stride + bit / 8] >> (bit % 8) & 1 ? 1 : -1;
}

template <class Write>
void ForContexts(const BitHead& head, Write write) {
  for (size_t i = 0; i < head.tokens; ++i) {
    int sums[kMaxBitHeadSize] = {};
    for (size_t j = 0; j < head.tokens; ++j) {
      int score = 0;
      for (size_t c = 0; c < head.head_size; ++c) score += Sign(head.query, head, i, c) * Sign(head.key, head, j, c);
      if (score < 0) continue;
      for (size_t c = 0; c < head.head_size; ++c) sums[c] += Sign(head.value, head, j, c);
    }
    for (size_t c = 0; c < head.head_size; ++c) write(i, c, sums[c]);
  }
}

}  // namespace

void BitAttention(const BitHead& head, int16_t* context, size_t context_stride, void*) {
  ForContexts(
      head, [&](size_t token, size_t c, int sum) { context[token * context_stride + c] = static_cast<int16_t>(sum); });
}

void BitAttentionBits(const BitHead& head, const BinaryThresholds& thresholds, uint8_t* bits, size_t bits_stride,
                      void*) {
  ForContexts(head, [&](size_t token, size_t c, int sum) {
    uint8_t& byte = bits[token * bits_stride + c / 8];
    if (c % 8 == 0) byte = 0;
    const bool bit = (sum > thresholds.above[c]) != (thresholds.flip[c] != 0);
    byte |= static_cast<uint8_t>(bit << (c % 8));
  });
}

}  // namespace bitpress::reference
