// Throughput of the kernels on one thread, against the fp32 multiply-add peak measured in the same run.
//
//   cmake -S . -B build -G Ninja -DBITPRESS_BUILD_BENCHMARKS=ON && cmake --build build --target bench_kernels
//   build/bench_kernels
//
// Each figure is the best of many short repetitions, so that other work on the machine disturbs it little.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "kernels/dispatch.h"
#include "timing.h"

namespace bitpress {
namespace {

std::vector<float> RandomFloats(size_t n) {
  static std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(engine);
  return x;
}

void Print(const char* name, size_t m, size_t k, size_t n, double seconds, double peak) {
  const double rate = static_cast<double>(m * k * n) / seconds * 1e-9;
  std::printf("  %-16s %4zu rows  K x N = %4zu x %4zu  %9.1f us  %6.1f GMAC/s  %.2f of the fp32 peak\n", name, m, k, n,
              seconds * 1e6, rate, peak > 0 ? rate / peak : 0.0);
}

void Linears(const Kernels& kernels, size_t m, size_t k, size_t n, double peak) {
  std::vector<int8_t> codes(n * k);
  for (int8_t& c : codes) c = static_cast<int8_t>(std::rand() % 3 - 1);
  const auto bias = RandomFloats(n), scale = RandomFloats(m), offset = RandomFloats(m), x = RandomFloats(m * k);
  const TernaryMatrix ternary = PackTernary(codes.data(), n, k, 0.02f, bias.data());
  std::vector<uint8_t> a(m * ternary.padded_inputs);
  for (uint8_t& q : a) q = static_cast<uint8_t>(std::rand());
  std::vector<float> y(m * n);
  Print("ternary_linear", m, k, n, BestSeconds([&] {
          kernels.ternary_linear(a.data(), ternary.padded_inputs, scale.data(), offset.data(), m, ternary, 0,
                                 ternary.panels, y.data(), n);
        }),
        peak);
  const FloatMatrix dense = PackFloat(RandomFloats(n * k).data(), n, k, bias.data());
  Print("float_linear", m, k, n,
        BestSeconds([&] { kernels.float_linear(x.data(), k, m, dense, 0, dense.panels, y.data(), n); }), peak);
}

void Attention(const Kernels& kernels, size_t tokens, size_t heads, size_t head_size) {
  const size_t hidden = heads * head_size;
  const auto q = RandomFloats(tokens * hidden), k = RandomFloats(tokens * hidden), v = RandomFloats(tokens * hidden);
  std::vector<float> context(tokens * hidden);
  void* scratch = std::aligned_alloc(64, AttentionScratchBytes(tokens, head_size));
  AttentionSpecs specs;
  specs.probabilities.nonnegative = true;
  const auto all_heads = [&](auto attend) {
    return BestSeconds([&] {
      for (size_t h = 0; h < heads; ++h) {
        const size_t at = h * head_size;
        attend(AttentionHead{&q[at], &k[at], &v[at], hidden, &context[at], hidden, tokens, head_size});
      }
    });
  };
  const double products = 2.0 * static_cast<double>(tokens * tokens * hidden);
  const double float_seconds = all_heads([&](const AttentionHead& head) { kernels.attention_float(head, scratch); });
  const double uint8_seconds =
      all_heads([&](const AttentionHead& head) { kernels.attention_uint8(head, specs, scratch); });
  std::printf(
      "  attention        %4zu tokens, %zu heads of %zu:  fp32 %8.1f us %5.1f GMAC/s   8-bit %8.1f us %5.1f GMAC/s\n",
      tokens, heads, head_size, float_seconds * 1e6, products / float_seconds * 1e-9, uint8_seconds * 1e6,
      products / uint8_seconds * 1e-9);
  std::free(scratch);
}

void Elementwise(const Kernels& kernels, size_t rows, size_t cols) {
  const auto x = RandomFloats(rows * cols), residual = RandomFloats(rows * cols), gamma = RandomFloats(cols);
  std::vector<float> y(rows * cols), scale(rows), offset(rows);
  std::vector<uint8_t> codes(rows * cols);
  std::vector<int32_t> sum(rows);
  QuantizeSpec spec;
  const double quantize = BestSeconds([&] {
    kernels.quantize_rows(x.data(), cols, rows, cols, spec, codes.data(), cols, scale.data(), offset.data(),
                          sum.data());
  });
  const double norm = BestSeconds(
      [&] { kernels.layer_norm(x.data(), residual.data(), rows, cols, gamma.data(), gamma.data(), 1e-12f, y.data()); });
  y = x;
  const double gelu = BestSeconds([&] { kernels.activate(Activation::kGelu, y.data(), y.size()); });
  std::printf("  %4zu x %4zu      quantize %7.1f us   layer_norm %7.1f us   gelu %7.1f us\n", rows, cols,
              quantize * 1e6, norm * 1e6, gelu * 1e6);
}

}  // namespace
}  // namespace bitpress

int main() {
  using namespace bitpress;
  std::string error;
  const Kernels* kernels = ChosenKernels(&error);
  if (!kernels) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  const double peak = PeakFloat();
  std::printf("ISA %s, fp32 peak %.1f GMAC/s\n", kernels->isa, peak);
  for (size_t m : {16, 128}) {
    Linears(*kernels, m, 768, 768, peak);
    Linears(*kernels, m, 768, 3072, peak);
    Linears(*kernels, m, 3072, 768, peak);
  }
  for (size_t tokens : {16, 128, 384}) Attention(*kernels, tokens, 12, 64);
  Attention(*kernels, 128, 12, 32);
  Elementwise(*kernels, 128, 768);
  Elementwise(*kernels, 128, 3072);
  return 0;
}
