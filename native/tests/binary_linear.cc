// Oracles: dot products of the values themselves, from the definition, for PackBinary with the reference; the reference
// kernel, bit for bit, for the rest; the worked numbers of BiBERT's weight binarization.
#include "kernels/binary_linear/binary_linear.h"

#include "tests/check.h"
#include "tests/isas.h"

namespace bitpress::test {
namespace {

std::vector<uint8_t> PackBits(const std::vector<uint8_t>& bits, size_t rows, size_t cols, size_t stride) {
  std::vector<uint8_t> packed(rows * stride);
  for (size_t i = 0; i < bits.size(); ++i) {
    packed[i / cols * stride + i % cols / 8] |= static_cast<uint8_t>(bits[i] << (i % cols % 8));
  }
  return packed;
}
std::vector<uint8_t> RandomBits(size_t n) {
  std::vector<uint8_t> bits(n);
  for (uint8_t& b : bits) b = static_cast<uint8_t>(RandomInt(0, 1));
  return bits;
}

struct Problem {
  size_t rows, outputs, inputs;
  std::vector<uint8_t> x_bits, w_bits;  // one a byte
  std::vector<uint8_t> x;
  size_t stride;
  size_t panels;
  BinaryMatrix nibbles, words;
  BinaryAffine affine;
  std::vector<int32_t> threshold;
  std::vector<uint8_t> flip;

  Problem(size_t rows, size_t outputs, size_t inputs)
      : Problem(RandomBits(rows * inputs), RandomBits(outputs * inputs), rows, outputs, inputs) {}
  Problem(std::vector<uint8_t> x_values, std::vector<uint8_t> w_values, size_t rows, size_t outputs, size_t inputs)
      : rows(rows), outputs(outputs), inputs(inputs), x_bits(std::move(x_values)), w_bits(std::move(w_values)) {
    stride = BitRowBytes(inputs) + 3;
    x = PackBits(x_bits, rows, inputs, stride);
    x.resize(x.size() - 3);  // exactly up to the last byte that may be read
    const std::vector<uint8_t> w = PackBits(w_bits, outputs, inputs, BitRowBytes(inputs));
    nibbles = PackBinary(w.data(), outputs, inputs, BinaryLayout::kNibbles);
    words = PackBinary(w.data(), outputs, inputs, BinaryLayout::kWords);
    panels = nibbles.panels;
    affine = PackAffine(RandomFloats(outputs).data(), RandomFloats(outputs).data(), outputs);
    const int spread = static_cast<int>(std::sqrt(static_cast<double>(inputs))) + 1;
    for (size_t n = 0; n < outputs; ++n) {
      threshold.push_back(RandomInt(-spread, spread));
      flip.push_back(static_cast<uint8_t>(RandomInt(0, 1)));
    }
  }

  int Dot(size_t row, size_t n, BitSet set) const {
    int dot = 0;
    for (size_t k = 0; k < inputs; ++k) {
      const int value = x_bits[row * inputs + k] ? 1 : set == BitSet::kSigns ? -1 : 0;
      dot += value * (w_bits[n * inputs + k] ? 1 : -1);
    }
    return dot;
  }
  const BinaryMatrix& Weights(const Kernels& kernels) const {
    return kernels.binary_layout == BinaryLayout::kNibbles ? nibbles : words;
  }
  BinaryInput Input(BitSet set) const { return {x.data(), stride, rows, set}; }

  std::vector<float> RunFloat(const Kernels& kernels, BitSet set, size_t panel_begin, size_t panel_end) const {
    const BinaryMatrix& w = Weights(kernels);
    std::vector<float> y(rows * (outputs + 1), -77.0f);
    const AlignedBuffer scratch = AllocateAligned(BinaryLinearScratchBytes(w));
    kernels.binary_linear_float(Input(set), w, affine, panel_begin, panel_end, y.data(), outputs + 1, scratch.get());
    return y;
  }
  std::vector<uint8_t> RunBits(const Kernels& kernels, BitSet set, size_t panel_begin, size_t panel_end) const {
    const BinaryMatrix& w = Weights(kernels);
    std::vector<uint8_t> y(rows * (w.panels * 8 + 1), 0x5A);
    const AlignedBuffer scratch = AllocateAligned(BinaryLinearScratchBytes(w));
    const BinaryThresholds thresholds = PackThresholds(threshold.data(), flip.data(), outputs);
    kernels.binary_linear_bits(Input(set), w, thresholds, panel_begin, panel_end, y.data(), w.panels * 8 + 1,
                               scratch.get());
    return y;
  }
  std::string Shape() const {
    return std::to_string(rows) + "x" + std::to_string(outputs) + "x" + std::to_string(inputs);
  }
};

constexpr BitSet kSets[] = {BitSet::kSigns, BitSet::kZeroOne};

void CheckAgainstTheDefinition(const Problem& p, const Kernels& kernels, BitSet set) {
  const auto y = p.RunFloat(kernels, set, 0, p.panels);
  const auto bits = p.RunBits(kernels, set, 0, p.panels);
  const size_t bits_stride = p.panels * 8 + 1;
  for (size_t row = 0; row < p.rows; ++row) {
    for (size_t n = 0; n < p.panels * kBitPanel; ++n) {
      const bool bit = bits[row * bits_stride + n / 8] >> (n % 8) & 1;
      if (n >= p.outputs) {
        CHECK_MSG(!bit, p.Shape());
        continue;
      }
      const int dot = p.Dot(row, n, set);
      const float expected = std::fma(static_cast<float>(dot), p.affine.scale[n], p.affine.bias[n]);
      CHECK_MSG(SameBits(y[row * (p.outputs + 1) + n], expected), p.Shape());
      CHECK_MSG(bit == ((dot >= p.threshold[n]) != (p.flip[n] == 1)), p.Shape());
    }
    CHECK(y[row * (p.outputs + 1) + p.outputs] == -77.0f && bits[row * bits_stride + bits_stride - 1] == 0x5A);
  }
}

TEST(EveryIsaMatchesTheDefinition) {
  ForEveryIsa([](const Kernels& kernels) {
    for (size_t inputs = 1; inputs <= 1000; inputs += inputs < 30 ? 1 : 97) {
      const Problem p(3, 66, inputs);
      for (BitSet set : kSets) CheckAgainstTheDefinition(p, kernels, set);
    }
    for (size_t outputs : {1, 31, 32, 33, 63, 64, 65, 127, 128, 130}) {
      const Problem p(2, outputs, 43);
      for (BitSet set : kSets) CheckAgainstTheDefinition(p, kernels, set);
    }
  });
}

TEST(FastIsasMatchTheReference) {
  ForEveryFastIsa([&](const Kernels& kernels, const Kernels& reference) {
    const auto check = [&](const Problem& p) {
      for (BitSet set : kSets) {
        const auto y = p.RunFloat(kernels, set, 0, p.panels);
        CHECK_MSG(SameBits(y, p.RunFloat(reference, set, 0, p.panels)), p.Shape());
        CHECK_MSG(p.RunBits(kernels, set, 0, p.panels) == p.RunBits(reference, set, 0, p.panels), p.Shape());
      }
    };
    // Around the step of 12, the word of 32, the 16-byte load of 128, the byte accumulator of 252, the depth block of
    // 1,008.
    for (size_t inputs :
         {11, 12, 13, 31, 32, 33, 127, 128, 129, 251, 252, 253, 312, 768, 1007, 1008, 1009, 1200, 3072}) {
      for (size_t rows : {1, 2, 3, 6, 7}) check(Problem(rows, 65, inputs));
    }
    // Around the row block of 64.
    for (size_t rows : {63, 64, 65, 130}) check(Problem(rows, 70, 61));
  });
}

TEST(AllEqualAndAllOppositeBits) {
  // The largest count there is in every byte and word: every byte accumulator is at its limit of 252.
  ForEveryIsa([](const Kernels& kernels) {
    for (size_t inputs : {1, 252, 1000, 1008, 4096, 32766}) {
      for (int x : {0, 1}) {
        for (int weight : {0, 1}) {
          Problem p(std::vector<uint8_t>(3 * inputs, static_cast<uint8_t>(x)),
                    std::vector<uint8_t>(2 * inputs, static_cast<uint8_t>(weight)), 3, 2, inputs);
          p.threshold.assign(2, static_cast<int32_t>(inputs));
          for (BitSet set : kSets) CheckAgainstTheDefinition(p, kernels, set);
        }
      }
    }
  });
}

TEST(ThresholdsOutOfReach) {
  ForEveryIsa([](const Kernels& kernels) {
    Problem p(2, 8, 20);
    p.threshold = {INT32_MIN, -40000, -21, -20, 20, 21, 40000, INT32_MAX};
    for (uint8_t flip : {uint8_t{0}, uint8_t{1}}) {
      p.flip.assign(8, flip);
      for (BitSet set : kSets) CheckAgainstTheDefinition(p, kernels, set);
    }
  });
}

TEST(OnlyTheGivenPanelsAreWritten) {
  ForEveryIsa([](const Kernels& kernels) {
    const Problem p(3, 200, 31);
    for (BitSet set : kSets) {
      const auto all = p.RunFloat(kernels, set, 0, 4), some = p.RunFloat(kernels, set, 1, 3);
      for (size_t i = 0; i < all.size(); ++i) {
        const size_t n = i % 201;
        CHECK(SameBits(some[i], n >= 64 && n < 192 ? all[i] : -77.0f));
      }
      const auto all_bits = p.RunBits(kernels, set, 0, 4), some_bits = p.RunBits(kernels, set, 1, 3);
      for (size_t i = 0; i < all_bits.size(); ++i) {
        const size_t byte = i % 33;
        CHECK(some_bits[i] == (byte >= 8 && byte < 24 ? all_bits[i] : 0x5A));
      }
      CHECK(p.RunBits(kernels, set, 2, 2) == std::vector<uint8_t>(all_bits.size(), 0x5A));
    }
  });
}

// BiBERT: W = [[.50,-.10,.20,-.20],[.30,.14,.40,-.44]] has row means .10 and .10, scales .25 and .32 and the rows 5 and
// 7; x = (.7,-1.2,.1,.3) gives the dot products 2 and 0. A bias of -.3 on the first folds to dot >= 2.
TEST(WorkedNumbers) {
  const uint8_t weights[2] = {5, 7}, x[1] = {0b1101};
  const float scale[2] = {0.25f, 0.32f};
  const int32_t threshold[2] = {2, 1};
  const BinaryAffine affine = PackAffine(scale, nullptr, 2);
  const BinaryThresholds thresholds = PackThresholds(threshold, nullptr, 2);
  ForEveryIsa([&](const Kernels& kernels) {
    const BinaryMatrix w = PackBinary(weights, 2, 4, kernels.binary_layout);
    const AlignedBuffer scratch = AllocateAligned(BinaryLinearScratchBytes(w));
    float y[2];
    kernels.binary_linear_float({x, 1, 1, BitSet::kSigns}, w, affine, 0, 1, y, 2, scratch.get());
    CHECK(y[0] == 0.5f && y[1] == 0.0f);
    uint8_t bits[8];
    kernels.binary_linear_bits({x, 1, 1, BitSet::kSigns}, w, thresholds, 0, 1, bits, 8, scratch.get());
    CHECK(bits[0] == 1 && bits[7] == 0);
  });
}

TEST(PackedFormIsOneBitAWeight) {
  const Problem p(1, 130, 500);
  CHECK(p.panels == 3 && p.nibbles.triples == 42);
  CHECK(p.nibbles.panel_bytes == 64 * 504 / 8 && p.words.panel_bytes == 64 * 512 / 8);
  size_t expected = 0;
  for (uint8_t bit : p.w_bits) expected += bit;
  for (const BinaryMatrix* w : {&p.nibbles, &p.words}) {
    size_t ones = 0;
    for (size_t i = 0; i < w->panels * w->panel_bytes; ++i)
      ones += static_cast<size_t>(__builtin_popcount(w->packed[i]));
    CHECK(ones == expected);  // so the padding is zero
  }
}

}  // namespace
}  // namespace bitpress::test
