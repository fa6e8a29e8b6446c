#include "engine/limits.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

namespace bitpress {
namespace {

// The highest rate of several rounds: whatever disturbs a round makes it slower, nothing makes it faster.
template <typename Work>
double BestRate(int rounds, const Work& work) {
  double best = 0.0;
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const auto done = static_cast<double>(work());
    best = std::max(best, done / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

Limits MeasureLimits(const Kernels& kernels) {
  Limits limits;
  // 100,000 steps take about 0.2 ms: far above the clock's resolution, below a scheduler's time slice.
  limits.multiply_adds = BestRate(100, [&] { return kernels.multiply_adds(100000); });
  // Twice 64 MB: more than any level-3 cache share of one core holds.
  std::vector<uint8_t> from(size_t{64} << 20, 1), to(from.size(), 2);
  limits.copied_bytes = BestRate(3, [&] {
    std::memcpy(to.data(), from.data(), from.size());
    asm volatile("" : : "r"(to.data()) : "memory");
    return from.size();
  });
  return limits;
}

}  // namespace bitpress
