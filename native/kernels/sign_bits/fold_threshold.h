// Where a monotone decision turns, so that a formula of floats becomes one comparison with exactly its bits.
//
// BiBERT: sgn(scale * dot + bias), and sgn(GELU(y)) = sgn(y).
// BiT, {-1,1}: x + move >= 0. BiT, {0,1}: round_half_even((x - b) / a) >= 1.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace bitpress {

// The smallest n in low..high for which decide(n) holds; high + 1 where none does. decide turns at most once, from
// false to true.
template <class Decide>
int64_t FirstTrue(int64_t low, int64_t high, Decide decide) {
  while (low <= high) {
    const int64_t middle = low + (high - low) / 2;
    if (decide(middle)) {
      high = middle - 1;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// bit = (dot >= threshold) xor flip, for PackThresholds.
struct DotThreshold {
  int32_t threshold;
  bool flip;
};

// decide: of an integer dot product, |dot| <= inputs; monotone in either direction.
template <class Decide>
DotThreshold FoldDot(size_t inputs, Decide decide) {
  const auto limit = static_cast<int64_t>(inputs);
  const auto at = [&](int64_t dot) -> bool { return decide(static_cast<int32_t>(dot)); };
  const bool flip = at(-limit) && !at(limit);
  const int64_t threshold = FirstTrue(-limit, limit, [&](int64_t dot) { return at(dot) != flip; });
  return {static_cast<int32_t>(threshold), flip};
}

// The threshold t for SignBits with (x >= t) == decide(x) for every x that is not NaN; NaN where decide never holds.
// decide: of a float, from false to true as x grows.
template <class Decide>
float FoldFloat(Decide decide) {
  // Floats in order as integers: sign and magnitude to two's complement. -0 and +0 compare equal, so that a decision
  // may not tell them apart.
  const auto value = [](int64_t order) {
    const auto magnitude = static_cast<uint32_t>(order < 0 ? -1 - order : order);
    const uint32_t bits = order < 0 ? magnitude | 0x80000000u : magnitude;
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
  };
  constexpr int64_t kInfinity = 0x7F800000;
  const int64_t first =
      FirstTrue(-1 - kInfinity, kInfinity, [&](int64_t order) -> bool { return decide(value(order)); });
  return first > kInfinity ? std::numeric_limits<float>::quiet_NaN() : value(first);
}

}  // namespace bitpress
