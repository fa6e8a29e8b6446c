// Oracles: int64 sums over the unpacked codes for the integer part; the reference kernel, bit for bit, for the rest.
#include "kernels/ternary_linear/ternary_linear.h"

#include "kernels/dispatch.h"
#include "tests/check.h"

namespace bitpress::test {
namespace {

struct Problem {
  size_t rows, outputs, inputs;
  std::vector<int8_t> codes;
  std::vector<float> bias;
  std::vector<uint8_t> a;
  std::vector<float> a_scale, a_offset;
  TernaryMatrix w;

  Problem(size_t rows, size_t outputs, size_t inputs) : rows(rows), outputs(outputs), inputs(inputs) {
    codes.resize(outputs * inputs);
    for (int8_t& c : codes) c = static_cast<int8_t>(RandomInt(-1, 1));
    bias = RandomFloats(outputs);
    a_scale = RandomFloats(rows, 0.01f);
    a_offset = RandomFloats(rows);
    Pack(0.037f);
    a.resize(rows * w.padded_inputs);
    for (uint8_t& q : a) q = static_cast<uint8_t>(RandomInt(0, 255));  // also where the padded weights are zero
  }
  void Pack(float scale) { w = PackTernary(codes.data(), outputs, inputs, scale, bias.data()); }

  std::vector<float> Run(const Kernels& kernels, size_t panel_begin, size_t panel_end) const {
    std::vector<float> y(rows * outputs, -77.0f);
    kernels.ternary_linear(a.data(), w.padded_inputs, a_scale.data(), a_offset.data(), rows, w, panel_begin, panel_end,
                           y.data(), outputs);
    return y;
  }
  std::vector<float> Run(const Kernels& kernels) const { return Run(kernels, 0, w.panels); }

  std::string Shape() const {
    return std::to_string(rows) + "x" + std::to_string(outputs) + "x" + std::to_string(inputs);
  }
};

TEST(ReferenceMatchesTheUnpackedCodes) {
  const Problem p(3, 17, 43);
  const std::vector<float> y = p.Run(*KernelsFor("reference"));
  for (size_t row = 0; row < p.rows; ++row) {
    for (size_t n = 0; n < p.outputs; ++n) {
      int64_t sum = 0, code_sum = 0;
      for (size_t k = 0; k < p.inputs; ++k) {
        sum += p.codes[n * p.inputs + k] * p.a[row * p.w.padded_inputs + k];
        code_sum += p.codes[n * p.inputs + k];
      }
      const float constant = std::fma(p.a_offset[row] * p.w.scale, static_cast<float>(code_sum), p.bias[n]);
      const float expected = std::fma(static_cast<float>(sum), p.a_scale[row] * p.w.scale, constant);
      CHECK(SameBits(y[row * p.outputs + n], expected));
    }
  }
}

TEST(EveryIsaMatchesTheReference) {
  const Kernels* avx2 = KernelsFor("avx2");
  if (!avx2) return;
  // Around the packed block of 8, the int16 block of 256 and the depth block of 768.
  for (size_t inputs : {1, 7, 8, 9, 255, 256, 257, 767, 768, 769, 1031}) {
    for (size_t rows : {1, 2, 3, 4, 5, 6, 7}) {
      for (size_t outputs : {1, 15, 16, 17, 33}) {
        const Problem p(rows, outputs, inputs);
        CHECK_MSG(SameBits(p.Run(*avx2), p.Run(*KernelsFor("reference"))), p.Shape());
      }
    }
  }
  for (size_t inputs : {3072, 3081}) {
    const Problem p(7, 17, inputs);
    CHECK_MSG(SameBits(p.Run(*avx2), p.Run(*KernelsFor("reference"))), p.Shape());
  }
  // Around the row block of 120.
  for (size_t rows : {119, 120, 121, 245}) {
    const Problem p(rows, 18, 777);
    CHECK_MSG(SameBits(p.Run(*avx2), p.Run(*KernelsFor("reference"))), p.Shape());
  }
}

TEST(ExtremeCodesDoNotSaturate) {
  for (const char* isa : {"reference", "avx2"}) {
    const Kernels* kernels = KernelsFor(isa);
    if (!kernels) continue;
    for (int weight : {1, -1}) {
      Problem p(7, 17, 4096);
      p.codes.assign(p.codes.size(), static_cast<int8_t>(weight));
      p.bias.assign(p.outputs, 0.0f);
      p.a.assign(p.a.size(), 255);
      p.a_scale.assign(p.rows, 1.0f);
      p.a_offset.assign(p.rows, 0.0f);
      p.Pack(1.0f);
      for (float y : p.Run(*kernels)) CHECK(y == 255.0f * 4096.0f * static_cast<float>(weight));
    }
  }
}

TEST(OnlyTheGivenPanelsAreWritten) {
  for (const char* isa : {"reference", "avx2"}) {
    const Kernels* kernels = KernelsFor(isa);
    if (!kernels) continue;
    const Problem p(4, 50, 31);
    const std::vector<float> all = p.Run(*kernels), some = p.Run(*kernels, 1, 3), none = p.Run(*kernels, 2, 2);
    for (size_t i = 0; i < all.size(); ++i) {
      const size_t n = i % p.outputs;
      CHECK(SameBits(some[i], n >= 16 && n < 48 ? all[i] : -77.0f));
      CHECK(none[i] == -77.0f);
    }
  }
}

TEST(NoBiasIsZeroBiasAndPaddingIsZero) {
  const std::vector<int8_t> codes(3 * 5, -1);
  const TernaryMatrix w = PackTernary(codes.data(), 3, 5, 1.0f, nullptr);
  CHECK(w.panels == 1 && w.padded_inputs == 8 && w.panel_bytes == 32 && w.packed.size() == 32);
  CHECK(w.code_sum.size() == 16 && w.code_sum[2] == -5 && w.code_sum[3] == 0);
  for (float b : w.bias) CHECK(b == 0.0f);
  int bits = 0;
  for (uint8_t byte : w.packed) bits += __builtin_popcount(byte);
  CHECK(bits == 2 * 15);  // each -1 is 11, all else 00
}

}  // namespace
}  // namespace bitpress::test
