// Oracle: hashes recorded once on x86-64 with GCC 12. Kernels of one build are compared with its reference elsewhere;
// here every architecture, compiler and ISA must give the same bits of every float formula (docs/numerics.md, point 4).
// Whoever changes a formula on purpose records anew what the failed check prints.
#include "kernels/quantize/quantize.h"
#include "tests/check.h"
#include "tests/isas.h"

namespace bitpress::test {
namespace {

// Multiples of 2^-21 in [-4, 4) from a linear congruential generator: no library's distribution is asked.
class Inputs {
 public:
  uint32_t Next() { return state_ = state_ * 1664525u + 1013904223u; }
  std::vector<float> Floats(size_t n) {
    std::vector<float> x(n);
    for (float& v : x) v = (static_cast<float>(Next() >> 8) - 0x1p23f) * 0x1p-21f;
    return x;
  }
  std::vector<uint8_t> Bytes(size_t n) {
    std::vector<uint8_t> x(n);
    for (uint8_t& v : x) v = static_cast<uint8_t>(Next() >> 24);
    return x;
  }

 private:
  uint32_t state_ = 20240229;
};

// FNV-1a, 64 bits, of the bytes of numbers.
class Hash {
 public:
  template <class T>
  void Add(const std::vector<T>& x) {
    for (const T& item : x) {
      unsigned char bytes[sizeof(T)];
      std::memcpy(bytes, &item, sizeof(T));
      for (unsigned char byte : bytes) value_ = (value_ ^ byte) * 0x100000001B3u;
    }
  }
  void Check(uint64_t expected, const Kernels& kernels, const char* what) const {
    char message[80];
    std::snprintf(message, sizeof(message), "%s, %s: 0x%016llX", what, kernels.isa,
                  static_cast<unsigned long long>(value_));
    CHECK_MSG(value_ == expected, message);
  }

 private:
  uint64_t value_ = 0xCBF29CE484222325u;
};

TEST(Activations) {
  ForEveryIsa([](const Kernels& kernels) {
    Hash hash;
    for (Activation kind : {Activation::kGelu, Activation::kGeluTanh, Activation::kRelu, Activation::kSilu,
                            Activation::kTanh, Activation::kExp}) {
      std::vector<float> x = Inputs().Floats(5003);
      kernels.activate(kind, x.data(), x.size());
      hash.Add(x);
    }
    hash.Check(0x6CAD0700007440A3, kernels, "activate");
  });
}

TEST(LayerNorms) {
  ForEveryIsa([](const Kernels& kernels) {
    Inputs inputs;
    const size_t rows = 7, cols = 313;
    const auto x = inputs.Floats(rows * cols), residual = inputs.Floats(rows * cols), gamma = inputs.Floats(cols),
               beta = inputs.Floats(cols);
    std::vector<float> y(rows * cols);
    kernels.layer_norm(x.data(), residual.data(), rows, cols, gamma.data(), beta.data(), 1e-12f, y.data());
    Hash hash;
    hash.Add(y);
    hash.Check(0x7AA98290CFCC3951, kernels, "layer_norm");
  });
}

TEST(QuantizedRows) {
  ForEveryIsa([](const Kernels& kernels) {
    const size_t rows = 19, cols = 83;
    const auto x = Inputs().Floats(rows * cols);
    Hash hash;
    for (bool symmetric : {false, true}) {
      QuantizeSpec spec;
      spec.symmetric = symmetric;
      std::vector<uint8_t> codes(rows * cols);
      std::vector<float> scale(rows), offset(rows);
      kernels.quantize_rows(x.data(), cols, rows, cols, spec, codes.data(), cols, scale.data(), offset.data(), nullptr);
      hash.Add(codes);
      hash.Add(scale);
      hash.Add(offset);
    }
    hash.Check(0x11FA775F63EF454F, kernels, "quantize_rows");
  });
}

TEST(LinearLayers) {
  ForEveryIsa([](const Kernels& kernels) {
    Inputs inputs;
    const size_t rows = 5, outputs = 37, cols = 160;
    Hash hash;
    std::vector<float> y(rows * outputs);
    const auto x = inputs.Floats(rows * cols), floats = inputs.Floats(outputs * cols), bias = inputs.Floats(outputs);
    const FloatMatrix of_floats = PackFloat(floats.data(), outputs, cols, bias.data());
    kernels.float_linear(x.data(), cols, rows, of_floats, 0, of_floats.panels, y.data(), outputs);
    hash.Add(y);
    // 8-bit codes, a scale and an offset for each 32 inputs of a row.
    const auto a = inputs.Bytes(rows * cols), codes = inputs.Bytes(outputs * cols);
    const auto a_scale = inputs.Floats(rows), a_offset = inputs.Floats(rows);
    const auto scale = inputs.Floats(outputs * cols / 32), offset = inputs.Floats(outputs * cols / 32);
    const PackedWeights weights = {{CodeScheme::kUniform, 8, false, false},
                                   outputs,
                                   cols,
                                   codes.data(),
                                   1,
                                   32,
                                   scale.data(),
                                   offset.data(),
                                   nullptr};
    IntegerMatrix matrix = MakeIntegerMatrix(weights, bias.data());
    std::vector<uint8_t> scratch(PackScratchBytes(matrix));
    for (size_t p = 0; p < matrix.panels; ++p) PackPanel(weights, p, scratch.data(), &matrix);
    kernels.integer_linear(a.data(), cols, a_scale.data(), a_offset.data(), rows, matrix, 0, matrix.panels, y.data(),
                           outputs);
    hash.Add(y);
    hash.Check(0x39A5634436BCF661, kernels, "float_linear and integer_linear");
  });
}

TEST(Attentions) {
  ForEveryIsa([](const Kernels& kernels) {
    Inputs inputs;
    const size_t tokens = 29, d = 26;
    const auto query = inputs.Floats(tokens * d), key = inputs.Floats(tokens * d), value = inputs.Floats(tokens * d);
    std::vector<float> context(tokens * d);
    const AttentionHead head{query.data(), key.data(), value.data(), d, context.data(), d, tokens, d};
    const AlignedBuffer scratch = AllocateAligned(AttentionScratchBytes(tokens, d));
    AttentionSpecs specs;
    specs.probabilities.nonnegative = true;
    Hash hash;
    kernels.attention_float(head, scratch.get());
    hash.Add(context);
    kernels.attention_uint8(head, specs, scratch.get());
    hash.Add(context);
    hash.Check(0xAB33D7CB2EBE5ECD, kernels, "attention_float and attention_uint8");
  });
}

}  // namespace
}  // namespace bitpress::test
