// Oracles: a double-precision product for the reference; the reference, bit for bit, for the rest.
#include "kernels/float_linear/float_linear.h"

#include "tests/check.h"
#include "tests/isas.h"

namespace bitpress::test {
namespace {

std::vector<float> Run(const Kernels& kernels, const std::vector<float>& x, size_t rows, const FloatMatrix& w,
                       size_t panel_begin, size_t panel_end) {
  std::vector<float> y(rows * w.outputs, -77.0f);
  kernels.float_linear(x.data(), w.inputs, rows, w, panel_begin, panel_end, y.data(), w.outputs);
  return y;
}

TEST(ReferenceMatchesDouble) {
  const size_t rows = 5, outputs = 19, inputs = 77;
  const auto x = RandomFloats(rows * inputs), w = RandomFloats(outputs * inputs), bias = RandomFloats(outputs);
  const FloatMatrix matrix = PackFloat(w.data(), outputs, inputs, bias.data());
  const auto y = Run(*KernelsFor("reference"), x, rows, matrix, 0, matrix.panels);
  for (size_t i = 0; i < rows * outputs; ++i) {
    double sum = bias[i % outputs], magnitude = std::fabs(sum);
    for (size_t k = 0; k < inputs; ++k) {
      const double product = double{x[i / outputs * inputs + k]} * w[i % outputs * inputs + k];
      sum += product;
      magnitude += std::fabs(product);
    }
    // Each of the inputs + 1 roundings errs by at most half an ulp of a partial sum <= magnitude.
    CHECK(std::fabs(y[i] - sum) <= static_cast<double>(inputs + 1) * 0x1p-24 * magnitude);
  }
}

TEST(EveryIsaMatchesTheReference) {
  ForEveryFastIsa([&](const Kernels& kernels, const Kernels& reference) {
    for (size_t inputs : {0, 1, 2, 7, 64, 313}) {
      for (size_t rows : {1, 2, 3, 4, 5, 6, 7, 13}) {
        for (size_t outputs : {1, 7, 8, 9, 15, 16, 17, 33}) {
          const auto x = RandomFloats(rows * inputs), w = RandomFloats(outputs * inputs), bias = RandomFloats(outputs);
          const FloatMatrix matrix = PackFloat(w.data(), outputs, inputs, bias.data());
          CHECK_MSG(SameBits(Run(kernels, x, rows, matrix, 0, matrix.panels),
                             Run(reference, x, rows, matrix, 0, matrix.panels)),
                    std::to_string(rows) + "x" + std::to_string(outputs) + "x" + std::to_string(inputs));
        }
      }
    }
  });
}

TEST(OnlyTheGivenPanelsAreWritten) {
  ForEveryIsa([&](const Kernels& kernels) {
    const size_t rows = 3, outputs = 40, inputs = 11;
    const auto x = RandomFloats(rows * inputs), w = RandomFloats(outputs * inputs);
    const FloatMatrix matrix = PackFloat(w.data(), outputs, inputs, nullptr);
    const auto all = Run(kernels, x, rows, matrix, 0, 3), some = Run(kernels, x, rows, matrix, 1, 2);
    for (size_t i = 0; i < all.size(); ++i) {
      const size_t n = i % outputs;
      CHECK(SameBits(some[i], n >= 16 && n < 32 ? all[i] : -77.0f));
    }
  });
}

}  // namespace
}  // namespace bitpress::test
