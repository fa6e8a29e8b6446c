// Slow reference: every score and every sum from single bits.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/bit_attention/bit_attention.h"

namespace bitpress::reference {
namespace {

int Sign(const uint8_t* rows, const BitHead& head, size_t token, size_t c) {
  const size_t bit = head.first_bit + c;
  return rows[token * head.stride + bit / 8] >> (bit % 8) & 1 ? 1 : -1;
}

// Whether a query attends to each of its keys, from their mismatches.
std::vector<bool> Attended(const std::vector<size_t>& mismatches, const AttendedKeys& keys) {
  std::vector<bool> attended(mismatches.size());
  if (keys.decay == nullptr) {
    for (size_t j = 0; j < attended.size(); ++j) attended[j] = mismatches[j] <= keys.most;
    return attended;
  }
  const size_t fewest = *std::min_element(mismatches.begin(), mismatches.end());
  float total = 0.0f;
  for (size_t m = fewest; m <= kMaxBitHeadSize; ++m) {
    const auto count = std::count(mismatches.begin(), mismatches.end(), m);
    if (count > 0) total = std::fma(static_cast<float>(count), keys.decay[m - fewest], total);
  }
  for (size_t j = 0; j < attended.size(); ++j) attended[j] = keys.decay[mismatches[j] - fewest] / total >= keys.least;
  return attended;
}

template <class Write>
void ForContexts(const BitHead& head, const AttendedKeys& keys, Write write) {
  std::vector<size_t> mismatches(head.tokens);
  for (size_t i = 0; i < head.tokens; ++i) {
    for (size_t j = 0; j < head.tokens; ++j) {
      mismatches[j] = 0;
      for (size_t c = 0; c < head.head_size; ++c) {
        mismatches[j] += Sign(head.query, head, i, c) != Sign(head.key, head, j, c);
      }
    }
    const std::vector<bool> attended = Attended(mismatches, keys);
    for (size_t c = 0; c < head.head_size; ++c) {
      int sum = 0;
      for (size_t j = 0; j < head.tokens; ++j) sum += attended[j] ? Sign(head.value, head, j, c) : 0;
      write(i, c, sum);
    }
  }
}

}  // namespace

void BitAttention(const BitHead& head, const AttendedKeys& keys, int16_t* context, size_t context_stride, void*) {
  ForContexts(head, keys, [&](size_t token, size_t c, int sum) {
    context[token * context_stride + c] = static_cast<int16_t>(sum);
  });
}

void BitAttentionBits(const BitHead& head, const AttendedKeys& keys, const BinaryThresholds& thresholds, uint8_t* bits,
                      size_t bits_stride, void*) {
  ForContexts(head, keys, [&](size_t token, size_t c, int sum) {
    uint8_t& byte = bits[token * bits_stride + c / 8];
    if (c % 8 == 0) byte = 0;
    const bool bit = (sum > thresholds.above[c]) != (thresholds.flip[c] != 0);
    byte |= static_cast<uint8_t>(bit << (c % 8));
  });
}

}  // namespace bitpress::reference
