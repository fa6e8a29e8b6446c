// Throughput of the linear layers on one thread (the rest: elementwise.cc), against the fp32 multiply-add peak and the
// clock measured in the same run.
//
//   cmake -S . -B build -G Ninja -DBITPRESS_BUILD_BENCHMARKS=ON && cmake --build build --target bench_kernels
//   build/bench_kernels
//
// Each figure is the best of many short repetitions, so that other work on the machine disturbs it little.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/dispatch.h"
#include "timing.h"

namespace bitpress {
namespace {

struct Machine {
  const Kernels& kernels;
  double peak;   // fp32 multiply-adds a second, billions
  double clock;  // GHz
};

// bound: the kernel's own, billions of multiply-adds a second; 0 where none was derived.
void Print(const Machine& machine, const char* name, size_t m, size_t k, size_t n, double seconds, double bound) {
  const double rate = static_cast<double>(m * k * n) / seconds * 1e-9;
  std::printf("  %-28s %4zu rows  %4zu x %4zu  %8.1f us  %6.1f GMAC/s  %.2f of the fp32 peak", name, m, k, n,
              seconds * 1e6, rate, rate / machine.peak);
  if (bound > 0) std::printf("  %.2f of its bound", rate / bound);
  std::printf("\n");
}

struct Form {
  const char* name;
  CodeFormat format;
  size_t group_inputs;  // 0: one scale a row
  int most;             // |code - center| <= most, for 8 bits
  double avx2_bound;    // see Bound
};

// Multiply-adds a cycle. AVX2: 64 in int16 (avx2_tiles.h), 32 where every product pair is widened, exactly as many by
// `vpmaddwd` of int16. VNNI: two `vpdpbusd` a cycle, whatever the weights; CPUs with one reach half.
double Bound(const char* isa, double avx2_bound) {
  if (std::strncmp(isa, "avx512", 6) == 0) return 128;
  if (std::strcmp(isa, "avxvnni") == 0) return 64;
  return std::strcmp(isa, "avx2") == 0 ? avx2_bound : 0;
}

constexpr CodeFormat Uniform(unsigned bits, bool symmetric) { return {CodeScheme::kUniform, bits, false, symmetric}; }
const Form kForms[] = {
    {"ternary", {CodeScheme::kTernary, 2, false, false}, 0, 1, 64},
    {"2 bits, groups of 128", Uniform(2, true), 128, 1, 64},
    {"2 bits with offsets, of 128", Uniform(2, false), 128, 2, 64},
    {"3 bits, groups of 128", Uniform(3, true), 128, 3, 64},
    {"4 bits, one scale a row", Uniform(4, true), 0, 7, 64},
    {"4 bits, groups of 128", Uniform(4, true), 128, 7, 64},
    {"4 bits with offsets, of 128", Uniform(4, false), 128, 8, 64},
    {"8 bits, fast", Uniform(8, true), 0, 64, 32},
    {"8 bits, exact", Uniform(8, true), 0, 127, 32},
};

// Codes of the form, packed: ternary ones uniform, the others as those of trained weights, close to normal with the
// largest at three deviations.
std::vector<uint8_t> RandomCodes(const Form& form, size_t n, size_t k) {
  const unsigned bits = form.format.bits;
  const int center = 1 << (bits - 1);
  static const auto normal = RandomFloats(1 << 16);
  std::vector<uint8_t> packed(n * PackedRowBytes(form.format, k));
  for (size_t i = 0; i < n * k; ++i) {  // k is a multiple of 8: rows end with a byte
    int code = std::rand() % 3 - 1;
    if (form.most > 1) {
      code = std::clamp(static_cast<int>(std::lround(normal[i % normal.size()] * static_cast<float>(form.most) / 3)),
                        -form.most, form.most);
    }
    code = form.format.scheme == CodeScheme::kTernary ? code & 3 : std::min(code + center, 2 * center - 1);
    for (unsigned bit = 0; bit < bits; ++bit) {
      packed[(i * bits + bit) / 8] =
          static_cast<uint8_t>(packed[(i * bits + bit) / 8] | (code >> bit & 1) << (i * bits + bit) % 8);
    }
  }
  return packed;
}

void IntegerLinears(const Machine& machine, size_t m, size_t k, size_t n) {
  const auto a_scale = RandomFloats(m), a_offset = RandomFloats(m);
  std::vector<uint8_t> a(m * k);  // k is a multiple of what every form pads to
  for (uint8_t& q : a) q = static_cast<uint8_t>(std::rand());
  std::vector<float> y(m * n);
  for (const Form& form : kForms) {
    const auto codes = RandomCodes(form, n, k);
    const std::vector<float> scale(n * k / 32, 0.02f);
    const bool has_offset = form.format.scheme == CodeScheme::kUniform && !form.format.symmetric;
    const PackedWeights weights = {form.format,
                                   n,
                                   k,
                                   codes.data(),
                                   1,
                                   form.group_inputs == 0 ? k : form.group_inputs,
                                   scale.data(),
                                   has_offset ? scale.data() : nullptr,
                                   nullptr};
    IntegerMatrix w = MakeIntegerMatrix(weights, nullptr);
    std::vector<uint8_t> scratch(PackScratchBytes(w));
    const double pack = BestSeconds([&] {
      for (size_t p = 0; p < w.panels; ++p) PackPanel(weights, p, scratch.data(), &w);
    });
    const double seconds = BestSeconds([&] {
      machine.kernels.integer_linear(a.data(), k, a_scale.data(), a_offset.data(), m, w, 0, w.panels, y.data(), n);
    });
    Print(machine, form.name, m, k, n, seconds, machine.clock * Bound(machine.kernels.isa, form.avx2_bound));
    if (m == 128) std::printf("    packed at %.2f ns a weight\n", pack * 1e9 / static_cast<double>(n * k));
  }
}

void FloatLinears(const Machine& machine, size_t m, size_t k, size_t n) {
  const auto bias = RandomFloats(n), x = RandomFloats(m * k);
  std::vector<float> y(m * n);
  const FloatMatrix dense = PackFloat(RandomFloats(n * k).data(), n, k, bias.data());
  const double seconds =
      BestSeconds([&] { machine.kernels.float_linear(x.data(), k, m, dense, 0, dense.panels, y.data(), n); });
  Print(machine, "fp32", m, k, n, seconds, machine.peak);
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
  const Machine machine = {*kernels, PeakFloat(*kernels), Clock()};
  std::printf("ISA %s, fp32 peak %.1f GMAC/s, clock %.2f GHz\n", kernels->isa, machine.peak, machine.clock);
  for (size_t m : {8, 16, 128}) {
    IntegerLinears(machine, m, 768, 3072);
    if (m == 128) IntegerLinears(machine, m, 3072, 768);
    FloatLinears(machine, m, 768, 3072);
  }
  return 0;
}
