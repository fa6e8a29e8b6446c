// Oracles: the formula in double for the reference; the reference, bit for bit, for the rest.
#include "kernels/layer_norm/layer_norm.h"

#include "tests/check.h"
#include "tests/isas.h"

namespace bitpress::test {
namespace {

constexpr float kEps = 1e-12f;

TEST(ReferenceMatchesDouble) {
  const size_t cols = 312;
  const auto x = RandomFloats(cols, 3.0f), residual = RandomFloats(cols), gamma = RandomFloats(cols),
             beta = RandomFloats(cols);
  std::vector<float> y(cols);
  KernelsFor("reference")->layer_norm(x.data(), residual.data(), 1, cols, gamma.data(), beta.data(), kEps, y.data());
  double mean = 0, variance = 0;
  for (size_t i = 0; i < cols; ++i) mean += (double{x[i]} + residual[i]) / cols;
  for (size_t i = 0; i < cols; ++i) variance += std::pow(double{x[i]} + residual[i] - mean, 2) / cols;
  for (size_t i = 0; i < cols; ++i) {
    const double normalized = (double{x[i]} + residual[i] - mean) / std::sqrt(variance + kEps);
    // 20 additions a lane and 4 between lanes for the mean, some roundings more; |normalized| < 5.
    const double bound = 40 * 0x1p-24 * (5 * std::fabs(gamma[i]) + std::fabs(beta[i]));
    CHECK(std::fabs(y[i] - (normalized * gamma[i] + beta[i])) <= bound);
  }
}

TEST(EveryIsaMatchesTheReference) {
  ForEveryFastIsa([&](const Kernels& kernels, const Kernels& reference) {
    for (size_t cols : {1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 312, 768, 771}) {
      for (bool with_residual : {false, true}) {
        for (bool in_place : {false, true}) {
          const size_t rows = 3;
          const auto x = RandomFloats(rows * cols, 3.0f), residual = RandomFloats(rows * cols);
          const auto gamma = RandomFloats(cols), beta = RandomFloats(cols);
          std::vector<float> y[2] = {x, x};
          const Kernels* both[2] = {&reference, &kernels};
          for (int i = 0; i < 2; ++i) {
            both[i]->layer_norm(in_place ? y[i].data() : x.data(), with_residual ? residual.data() : nullptr, rows,
                                cols, gamma.data(), beta.data(), kEps, y[i].data());
          }
          CHECK_MSG(SameBits(y[0], y[1]), std::to_string(cols) + " columns");
        }
      }
    }
  });
}

TEST(AConstantRowBecomesBetaAndTheResidualMayBeTheOutput) {
  ForEveryIsa([&](const Kernels& kernels) {
    const size_t cols = 21;
    const std::vector<float> x(cols, 2.0f), gamma(cols, 3.0f), beta = RandomFloats(cols);
    std::vector<float> y(cols, 4.0f);
    kernels.layer_norm(x.data(), y.data(), 1, cols, gamma.data(), beta.data(), kEps, y.data());
    CHECK(SameBits(y, beta));
  });
}

}  // namespace
}  // namespace bitpress::test
