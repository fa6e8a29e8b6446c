// Throughput of the linear layers on one thread (the rest: elementwise.cc), against the fp32 multiply-add peak measured
// in the same run.
//
//   cmake -S . -B build -G Ninja -DBITPRESS_BUILD_BENCHMARKS=ON && cmake --build build --target bench_kernels
//   build/bench_kernels
#include <cstdio>
#include <cstdlib>

#include "kernels/dispatch.h"
#include "measure.h"

namespace bitpress {
namespace {

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
  return 0;
}
