// Time of everything in a BERT-base pass (12 layers, 768, 12 heads of 64) that is not a linear layer, one thread.
//
//   cmake -S . -B build -G Ninja -DBITPRESS_BUILD_BENCHMARKS=ON && cmake --build build --target bench_elementwise
//   build/bench_elementwise
//
// One layer is measured and multiplied. Beside each figure stands its floor: the larger of the bytes it must move over
// the rate of L2 (32 bytes a cycle) and its vector operations over their rates, from the comments below.
#include <cstdio>
#include <cstdlib>

#include "kernels/dispatch.h"
#include "timing.h"

namespace bitpress {
namespace {

constexpr size_t kLayers = 12, kHidden = 768, kIntermediate = 3072, kHeads = 12, kHeadSize = 64;

struct Machine {
  const Kernels& kernels;
  double cycles_per_ms;
};

void Print(const Machine& machine, const char* name, size_t tokens, double seconds, double floor_cycles) {
  std::printf("  %-24s %4zu tokens %8.3f ms   floor %8.3f\n", name, tokens, seconds * 1e3,
              floor_cycles / machine.cycles_per_ms);
}

// Of the whole model, from the cycles of one register of eight floats and the bytes moved for it.
double Floor(size_t floats, double cycles_a_register, double bytes_a_register) {
  return static_cast<double>(floats) / 8 * std::max(cycles_a_register, bytes_a_register / 32);
}

void LayerNorms(const Machine& machine, size_t tokens) {
  const size_t count = tokens * kHidden;
  const auto x = RandomFloats(count), gamma = RandomFloats(kHidden), beta = RandomFloats(kHidden);
  auto y = RandomFloats(count);
  const double seconds = BestSeconds([&] {
    machine.kernels.layer_norm(x.data(), y.data(), tokens, kHidden, gamma.data(), beta.data(), 1e-12f, y.data());
  });
  // Mean: 2 loads, 2 additions. Squares: 3 operations. Output: 9, of which 5 multiplies at 2 a cycle.
  Print(machine, "layer_norm + residual", tokens, 2 * kLayers * seconds,
        Floor(2 * kLayers * count, 1.0 + 1.0 + 2.5, 96));
}

void QuantizeRows(const Machine& machine, size_t tokens, size_t cols, size_t times) {
  const auto x = RandomFloats(tokens * cols);
  std::vector<uint8_t> codes(tokens * cols);
  std::vector<float> scale(tokens), offset(tokens);
  const double seconds = BestSeconds([&] {
    machine.kernels.quantize_rows(x.data(), cols, tokens, cols, QuantizeSpec{}, codes.data(), cols, scale.data(),
                                  offset.data(), nullptr);
  });
  // Range: 3 operations. Codes: 7, of which 4 multiplies at 2 a cycle.
  Print(machine, cols == kHidden ? "quantize_rows 3 x 768" : "quantize_rows 3072", tokens,
        static_cast<double>(times * kLayers) * seconds, Floor(times * kLayers * tokens * cols, 0.75 + 2.0, 40));
}

void Gelu(const Machine& machine, size_t tokens) {
  // As after a linear layer: a strip of columns, short enough for L2. Fresh inputs each time, as GELU of GELU of GELU
  // ends in denormals.
  constexpr size_t kStrip = kIntermediate / 8;
  const auto x = RandomFloats(tokens * kStrip);
  auto y = x;
  const double seconds = BestSeconds([&] { y = x; },
                                     [&] {
                                       for (size_t i = 0; i < tokens; ++i) {
                                         machine.kernels.activate(Activation::kGelu, y.data() + i * kStrip, kStrip);
                                       }
                                     });
  // 15 multiplies at 2 a cycle.
  Print(machine, "gelu", tokens, kLayers * 8 * seconds, Floor(kLayers * tokens * kIntermediate, 7.5, 64));
}

void AddRows(const Machine& machine, size_t tokens) {
  const auto type = RandomFloats(kHidden), position = RandomFloats(tokens * kHidden);
  const auto words = RandomFloats(tokens * kHidden);
  auto y = words;
  const double seconds = BestSeconds([&] { y = words; },
                                     [&] {
                                       for (size_t i = 0; i < tokens; ++i) {
                                         machine.kernels.add_rows(type.data(), position.data() + i * kHidden, kHidden,
                                                                  y.data() + i * kHidden);
                                       }
                                     });
  Print(machine, "add_rows", tokens, seconds, Floor(tokens * kHidden, 1.5, 96));
}

void Attention(const Machine& machine, size_t tokens) {
  const auto q = RandomFloats(tokens * kHidden), k = RandomFloats(tokens * kHidden), v = RandomFloats(tokens * kHidden);
  std::vector<float> context(tokens * kHidden);
  void* scratch = std::aligned_alloc(64, RoundUp(AttentionScratchBytes(tokens, kHeadSize), 64));
  AttentionSpecs specs;
  specs.probabilities.nonnegative = true;
  const auto all_heads = [&](auto attend) {
    return BestSeconds([&] {
      for (size_t at = 0; at < kHidden; at += kHeadSize) {
        attend(AttentionHead{&q[at], &k[at], &v[at], kHidden, &context[at], kHidden, tokens, kHeadSize});
      }
    });
  };
  const double float_seconds =
      all_heads([&](const AttentionHead& head) { machine.kernels.attention_float(head, scratch); });
  const double uint8_seconds =
      all_heads([&](const AttentionHead& head) { machine.kernels.attention_uint8(head, specs, scratch); });
  std::free(scratch);
  // Products: 8 a multiply-add, two a cycle; 16 a `vpmaddwd`, each with an addition, 3.4 such operations a cycle.
  // Softmax of a score: exp and division, 17 multiplies at 2 a cycle.
  const double products = 2.0 * static_cast<double>(kLayers * tokens * tokens * kHidden);
  const double softmax = Floor(kLayers * kHeads * tokens * tokens, 8.5, 0);
  Print(machine, "attention_float", tokens, kLayers * float_seconds, products / 16 + softmax);
  // Scores: 4 multiplies and 2 conversions more. Quantization of queries, keys and values: 3 + 7 operations.
  const double quantize = Floor(3 * kLayers * tokens * kHidden, 2.75, 0);
  Print(machine, "attention_uint8", tokens, kLayers * uint8_seconds,
        products / 16 * 2 / 3.4 + softmax + Floor(kLayers * kHeads * tokens * tokens, 4, 0) + quantize);
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
  const Machine machine = {*kernels, Clock() * 1e6};
  std::printf("ISA %s, %.2f GHz; whole BERT-base model, one thread\n", kernels->isa, machine.cycles_per_ms * 1e-6);
  LayerNorms(machine, 128);
  QuantizeRows(machine, 128, kHidden, 3);
  QuantizeRows(machine, 128, kIntermediate, 1);
  Gelu(machine, 128);
  AddRows(machine, 128);
  for (size_t tokens : {16, 64, 128, 384}) Attention(machine, tokens);
  return 0;
}
