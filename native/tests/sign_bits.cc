// Oracles: the comparison itself; for folded thresholds the formula that was folded, at every value around its turn.
#include "kernels/sign_bits/sign_bits.h"

#include <algorithm>
#include <limits>

#include "kernels/sign_bits/fold_threshold.h"
#include "tests/check.h"
#include "tests/isas.h"

namespace bitpress::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(EveryIsaMatchesTheComparison) {
  ForEveryIsa([](const Kernels& kernels) {
    for (size_t cols : {1, 7, 8, 9, 15, 16, 17, 100, 312}) {
      const size_t rows = 3, ldx = cols + 1, ldb = (cols + 7) / 8 + 2;
      auto x = RandomFloats(rows * ldx - 1);
      const auto limits = RandomFloats(cols);
      for (size_t c = 0; c < cols; c += 3) x[c] = limits[c];  // equal is one
      for (const float* column_thresholds : {static_cast<const float*>(nullptr), limits.data()}) {
        std::vector<uint8_t> bits(rows * ldb, 0x5A);
        kernels.sign_bits(x.data(), ldx, rows, cols, 0.25f, column_thresholds, bits.data(), ldb);
        for (size_t i = 0; i < rows * ldb * 8; ++i) {
          const size_t row = i / (ldb * 8), col = i % (ldb * 8);
          const bool expected = col < cols && x[row * ldx + col] >= (column_thresholds ? limits[col] : 0.25f);
          CHECK((bits[i / 8] >> (i % 8) & 1) == expected);
        }
      }
    }
  });
}

TEST(ZeroIsPositiveAndNanIsNot) {
  ForEveryIsa([](const Kernels& kernels) {
    const float x[9] = {0.0f, -0.0f, 1e-45f, -1e-45f, kInfinity, -kInfinity, kNan, -kNan, kNan};
    uint8_t bits[2];
    kernels.sign_bits(x, 9, 1, 9, 0.0f, nullptr, bits, 2);
    CHECK(bits[0] == 0b00010111 && bits[1] == 0);
    kernels.sign_bits(x, 9, 1, 9, kNan, nullptr, bits, 2);
    CHECK(bits[0] == 0 && bits[1] == 0);
  });
}

// BiBERT's example: scale .25, bias -.3 gives dot >= 1.2, so 2.
TEST(FoldedDotsMatchTheFloatPath) {
  const DotThreshold worked = FoldDot(4, [](int dot) { return std::fma(static_cast<float>(dot), 0.25f, -0.3f) >= 0; });
  CHECK(worked.threshold == 2 && !worked.flip);
  for (int repeat = 0; repeat < 200; ++repeat) {
    const float scale = repeat % 10 == 0 ? 0.0f : RandomFloats(1)[0], bias = 50.0f * RandomFloats(1)[0];
    for (size_t inputs : {1, 26, 768}) {
      const auto decide = [&](int dot) { return std::fma(static_cast<float>(dot), scale, bias) >= 0.0f; };
      const DotThreshold folded = FoldDot(inputs, decide);
      for (int dot = -static_cast<int>(inputs); dot <= static_cast<int>(inputs); ++dot) {
        CHECK(((dot >= folded.threshold) != folded.flip) == decide(dot));
      }
    }
  }
}

TEST(FoldedFloatsMatchTheFormula) {
  const auto check = [](auto decide) {
    const float t = FoldFloat(decide);
    std::vector<float> probes = {0.0f, -0.0f, 1e-45f, -1e-45f, 1.0f, -1.0f, 3e38f, -3e38f, kInfinity, -kInfinity};
    if (!std::isnan(t)) {
      float below = t, above = t;
      for (int i = 0; i < 20; ++i) {
        probes.push_back(below = std::nextafter(below, -kInfinity));
        probes.push_back(above = std::nextafter(above, kInfinity));
      }
      probes.push_back(t);
    }
    for (float x : RandomFloats(50)) probes.push_back(x);
    for (float x : probes) CHECK((x >= t) == decide(x));
  };
  for (int repeat = 0; repeat < 50; ++repeat) {
    const float move = RandomFloats(1)[0], scale = std::fabs(RandomFloats(1)[0]) + 1e-5f;
    check([=](float x) { return x + move >= 0.0f; });
    check([=](float x) { return std::nearbyint((x - move) / scale) >= 1.0f; });
    check([=](float x) { return std::max(x, 0.0f) + move > scale / 2; });
  }
  check([](float) { return false; });
  check([](float) { return true; });
  // BiT's example: alpha .8 makes 0, .2, .5, .9, 2 to 0, 0, 1, 1, 1; and .4, exactly half, rounds to 0.
  const float t = FoldFloat([](float x) { return std::nearbyint(x / 0.8f) >= 1.0f; });
  CHECK(!(0.2f >= t) && !(0.4f >= t) && 0.5f >= t && 0.9f >= t);
}

}  // namespace
}  // namespace bitpress::test
