// Throughput of the kernels of fully binarized encoders on one thread.
//
//   cmake -S . -B build -G Ninja -DBITPRESS_BUILD_BENCHMARKS=ON && cmake --build build --target bench_binary
//   build/bench_binary
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/dispatch.h"
#include "timing.h"

namespace bitpress {
namespace {

// Products a cycle of the inner loops: counted words (simd/avx512_word_counts.h), or the look-up of nibbles
// (simd/avx2_bit_counts.h); 0 where none was derived.
double Bound(const char* isa) {
  if (std::strcmp(isa, "avx512vpopcntdq") == 0) return 683;
  return std::strncmp(isa, "avx", 3) == 0 ? 384 : 0;
}

struct Machine {
  double peak;   // fp32 multiply-adds a second, billions
  double bound;  // products a second of the inner loop, billions
};

std::vector<uint8_t> RandomBytes(size_t n) {
  static std::mt19937 engine(1);
  std::vector<uint8_t> x(n);
  for (uint8_t& v : x) v = static_cast<uint8_t>(engine());
  return x;
}

struct Scratch {
  explicit Scratch(size_t bytes) : p(std::aligned_alloc(64, RoundUp(bytes, 64))) {}
  ~Scratch() { std::free(p); }
  Scratch(const Scratch&) = delete;
  void* p;
};

struct LinearSeconds {
  double floats, bits;
};

LinearSeconds Linear(const Kernels& kernels, size_t m, size_t k, size_t n, const Machine& machine) {
  const auto x = RandomBytes(m * BitRowBytes(k));
  const BinaryMatrix w = PackBinary(RandomBytes(n * BitRowBytes(k)).data(), n, k, kernels.binary_layout);
  const BinaryAffine affine = PackAffine(RandomFloats(n).data(), RandomFloats(n).data(), n);
  const BinaryThresholds thresholds = PackThresholds(std::vector<int32_t>(n).data(), nullptr, n);
  std::vector<float> y(m * n);
  std::vector<uint8_t> bits(m * w.panels * 8);
  const Scratch scratch(BinaryLinearScratchBytes(w));
  const BinaryInput input{x.data(), BitRowBytes(k), m, BitSet::kSigns};
  const LinearSeconds seconds = {
      BestSeconds([&] { kernels.binary_linear_float(input, w, affine, 0, w.panels, y.data(), n, scratch.p); }),
      BestSeconds([&] {
        kernels.binary_linear_bits(input, w, thresholds, 0, w.panels, bits.data(), w.panels * 8, scratch.p);
      })};
  const double products = static_cast<double>(m * k * n) * 1e-9;
  const auto print = [&](const char* form, double s) {
    std::printf("   to %s %8.1f us %6.1f GMAC/s %5.1f x fp32", form, s * 1e6, products / s,
                products / s / machine.peak);
    if (machine.bound > 0) std::printf(" %.2f of bound", products / s / machine.bound);
  };
  std::printf("%4zu rows %4zu x %4zu", m, k, n);
  print("fp32", seconds.floats);
  print("bits", seconds.bits);
  std::printf("\n");
  return seconds;
}

// Both products and the packing of `heads` heads, to sign bits.
double Attention(const Kernels& kernels, size_t tokens, size_t heads, size_t head_size) {
  const size_t stride = BitRowBytes(heads * head_size);
  const auto q = RandomBytes(tokens * stride), k = RandomBytes(tokens * stride), v = RandomBytes(tokens * stride);
  std::vector<uint8_t> bits(tokens * stride);
  const BinaryThresholds thresholds = PackThresholds(std::vector<int32_t>(head_size).data(), nullptr, head_size);
  const Scratch scratch(BitAttentionScratchBytes(tokens, head_size));
  const double seconds = BestSeconds([&] {
    for (size_t h = 0; h < heads; ++h) {
      const BitHead head{q.data(), k.data(), v.data(), stride, h * head_size, tokens, head_size};
      kernels.bit_attention_bits(head, {head_size / 2}, thresholds, bits.data() + h * head_size / 8, stride, scratch.p);
    }
  });
  const double products = 2e-9 * static_cast<double>(tokens * tokens * heads * head_size);
  std::printf("attention %4zu tokens, %zu heads of %zu: %8.1f us %6.1f GMAC/s\n", tokens, heads, head_size,
              seconds * 1e6, products / seconds);
  return seconds;
}

double Signs(const Kernels& kernels, size_t rows, size_t cols) {
  const auto x = RandomFloats(rows * cols);
  std::vector<uint8_t> bits(rows * BitRowBytes(cols));
  return BestSeconds(
      [&] { kernels.sign_bits(x.data(), cols, rows, cols, 0.0f, nullptr, bits.data(), BitRowBytes(cols)); });
}

// Twelve layers of BERT-base: linear layers, attention and sign bits; without LayerNorm and embeddings.
void BertBase(const Kernels& kernels, size_t tokens, const Machine& machine) {
  const LinearSeconds square = Linear(kernels, tokens, 768, 768, machine),
                      up = Linear(kernels, tokens, 768, 3072, machine),
                      down = Linear(kernels, tokens, 3072, 768, machine);
  const double linear = 12 * (3 * square.bits + square.floats + up.bits + down.floats);
  const double attention = 12 * Attention(kernels, tokens, 12, 64), signs = 12 * 2 * Signs(kernels, tokens, 768);
  std::printf("BERT-base 1x%zu, one thread: %.2f ms = linear layers %.2f + attention %.2f + sign bits %.2f\n\n", tokens,
              1e3 * (linear + attention + signs), 1e3 * linear, 1e3 * attention, 1e3 * signs);
}

// All sign bits of BERT-base's linear layers from the artifact's form to the kernels'.
void Loading(BinaryLayout layout) {
  const auto bits = RandomBytes(3072 * 768 / 8);
  const double seconds = BestSeconds([&] {
    for (int layer = 0; layer < 12; ++layer) {
      for (int i = 0; i < 4; ++i) PackBinary(bits.data(), 768, 768, layout);
      PackBinary(bits.data(), 3072, 768, layout);
      PackBinary(bits.data(), 768, 3072, layout);
    }
  });
  std::printf("loading the sign bits of BERT-base, one thread: %.1f ms\n", seconds * 1e3);
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
  const Machine machine = {PeakFloat(*kernels), Clock() * Bound(kernels->isa)};
  std::printf("ISA %s, fp32 peak %.1f GMAC/s, bound %.0f GMAC/s\n", kernels->isa, machine.peak, machine.bound);
  for (size_t tokens : {1, 8, 16, 64, 128, 384}) BertBase(*kernels, tokens, machine);
  for (size_t tokens : {16, 128, 384}) Attention(*kernels, tokens, 12, 32);
  Loading(kernels->binary_layout);
  return 0;
}
