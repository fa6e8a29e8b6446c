// Oracles: worked numbers of the formulas in quantize.h; the reference, bit for bit, for the rest.
#include "kernels/quantize/quantize.h"

#include <limits>

#include "tests/check.h"
#include "tests/isas.h"

namespace bitpress::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Result {
  std::vector<uint8_t> codes;
  std::vector<float> scale, offset;
  std::vector<int32_t> sum;
};

Result QuantizeRows(const Kernels& kernels, const std::vector<float>& x, size_t ldx, size_t rows, size_t cols,
                    size_t ldc, const QuantizeSpec& spec) {
  Result r{std::vector<uint8_t>(rows * ldc, 99), std::vector<float>(rows), std::vector<float>(rows),
           std::vector<int32_t>(rows)};
  kernels.quantize_rows(x.data(), ldx, rows, cols, spec, r.codes.data(), ldc, r.scale.data(), r.offset.data(),
                        r.sum.data());
  return r;
}

Result QuantizeBlock(const Kernels& kernels, const std::vector<float>& x, size_t ldx, size_t rows, size_t cols,
                     size_t ldc, const QuantizeSpec& spec) {
  Result r{std::vector<uint8_t>(rows * ldc, 99), std::vector<float>(1), std::vector<float>(1), {}};
  kernels.quantize_block(x.data(), ldx, rows, cols, spec, r.codes.data(), ldc, r.scale.data(), r.offset.data());
  return r;
}

bool Same(const Result& a, const Result& b) {
  return a.codes == b.codes && SameBits(a.scale, b.scale) && SameBits(a.offset, b.offset) && a.sum == b.sum;
}

QuantizeSpec Spec(bool symmetric, bool nonnegative = false, float clip = 0.0f, unsigned bits = 8) {
  QuantizeSpec spec;
  spec.bits = bits;
  spec.symmetric = symmetric;
  spec.nonnegative = nonnegative;
  spec.clip = clip;
  return spec;
}

// Each row under every ISA: what the formula says it becomes.
void Expect(const std::vector<float>& x, const QuantizeSpec& spec, const std::vector<uint8_t>& codes, float scale,
            float offset) {
  ForEveryIsa([&](const Kernels& kernels) {
    const Result r = QuantizeRows(kernels, x, x.size(), 1, x.size(), x.size(), spec);
    CHECK_MSG(r.codes == codes, kernels.isa);
    CHECK_MSG(SameBits(r.scale[0], scale) && SameBits(r.offset[0], offset),
              std::to_string(r.scale[0]) + " " + std::to_string(r.offset[0]));
    int32_t sum = 0;
    for (uint8_t code : codes) sum += code;
    CHECK(r.sum[0] == sum);
  });
}

TEST(AsymmetricRoundsHalfToEven) {
  Expect({0.0f, 0.5f, 1.5f, 2.5f, 3.4f, 254.5f, 255.0f}, Spec(false), {0, 0, 2, 2, 3, 254, 255}, 1.0f, 0.0f);
  Expect({-10.0f, 245.0f, 0.25f}, Spec(false), {0, 255, 10}, 1.0f, -10.0f);
}

TEST(SymmetricIsCentredOn128) {
  Expect({-127.0f, 0.0f, 0.5f, 1.5f, -0.5f, -1.5f, 100.0f}, Spec(true), {1, 128, 128, 130, 128, 126, 228}, 1.0f,
         -128.0f);
}

TEST(NonnegativeKeepsZero) {
  Expect({0.0f, 51.0f, 255.0f}, Spec(false, true), {0, 51, 255}, 1.0f, 0.0f);
  Expect({0.0f, 51.0f, 127.0f}, Spec(true, true), {0, 51, 127}, 1.0f, 0.0f);
}

TEST(FourBitsHaveSixteenCodes) {
  const auto spec = [](bool symmetric, bool nonnegative = false, float clip = 0.0f) {
    return Spec(symmetric, nonnegative, clip, 4);
  };
  Expect({0.0f, 0.5f, 1.5f, 2.5f, 14.5f, 15.0f}, spec(false), {0, 0, 2, 2, 14, 15}, 1.0f, 0.0f);
  Expect({-5.0f, 25.0f, 0.9f}, spec(false), {0, 15, 3}, 2.0f, -5.0f);
  Expect({-7.0f, 0.0f, 0.5f, 1.5f, -0.5f, -1.5f, 6.0f}, spec(true), {1, 8, 8, 10, 8, 6, 14}, 1.0f, -8.0f);
  Expect({0.0f, 4.0f, 15.0f}, spec(false, true), {0, 4, 15}, 1.0f, 0.0f);
  Expect({0.0f, 4.0f, 7.0f}, spec(true, true), {0, 4, 7}, 1.0f, 0.0f);
  Expect({-300.0f, 0.0f, 500.0f}, spec(true, false, 7.0f), {1, 8, 15}, 1.0f, -8.0f);
  Expect({3.25f, 3.25f}, spec(false), {0, 0}, 1.0f, 3.25f);
  Expect({0.0f, -0.0f}, spec(true), {8, 8}, 1.0f, -8.0f);
  QuantizeSpec fixed = spec(false);
  fixed.is_static = true;
  fixed.scale = 0.5f;
  fixed.offset = -3.0f;
  Expect({-99.0f, -3.0f, 0.0f, 4.5f, 1e9f, kNaN}, fixed, {0, 0, 6, 15, 15, 0}, 0.5f, -3.0f);
  fixed.symmetric = true;
  fixed.offset = -4.0f;
  Expect({-99.0f, -1.0f, 0.0f, 1e9f}, fixed, {1, 6, 8, 15}, 0.5f, -4.0f);
}

TEST(ARangeOfZeroIsConstant) {
  Expect({3.25f, 3.25f, 3.25f}, Spec(false), {0, 0, 0}, 1.0f, 3.25f);
  Expect({0.0f, -0.0f}, Spec(false), {0, 0}, 1.0f, 0.0f);
  Expect({0.0f, -0.0f}, Spec(true), {128, 128}, 1.0f, -128.0f);
  Expect({0.0f, 0.0f}, Spec(false, true), {0, 0}, 1.0f, 0.0f);
  Expect({1e-45f, 2e-45f}, Spec(false), {0, 0}, 1.0f, 1e-45f);  // (hi - lo) / 255 underflows
}

TEST(ClipComesFirst) {
  Expect({-300.0f, -127.5f, 0.0f, 127.5f, 9e9f}, Spec(false, false, 127.5f), {0, 0, 128, 255, 255}, 1.0f, -127.5f);
  Expect({-300.0f, 0.0f, 500.0f}, Spec(true, false, 127.0f), {1, 128, 255}, 1.0f, -128.0f);
}

TEST(StaticUsesTheGivenRangeAndClamps) {
  QuantizeSpec spec = Spec(false);
  spec.is_static = true;
  spec.scale = 0.5f;
  spec.offset = -10.0f;
  Expect({-99.0f, -10.0f, 0.0f, 117.5f, 1e9f}, spec, {0, 0, 20, 255, 255}, 0.5f, -10.0f);
  spec.symmetric = true;
  spec.offset = -64.0f;
  Expect({-99.0f, -1.0f, 0.0f, 1e9f}, spec, {1, 126, 128, 255}, 0.5f, -64.0f);
  spec.nonnegative = true;
  spec.offset = 0.0f;
  Expect({0.0f, 1.0f, 1e9f}, spec, {0, 2, 127}, 0.5f, 0.0f);
}

TEST(NaNReachesTheScaleAndInfinityStaysInRange) {
  for (bool symmetric : {false, true}) Expect({1.0f, kNaN, 2.0f}, Spec(symmetric), {0, 0, 0}, kNaN, kNaN);
  Expect({1.0f, kNaN}, Spec(false, false, 0.5f), {0, 0}, kNaN, kNaN);
  Expect({0.0f, kNaN}, Spec(false, true), {0, 0}, kNaN, kNaN);
  Expect({1.0f, kInfinity}, Spec(false), {0, 0}, kInfinity, 1.0f);
  QuantizeSpec spec = Spec(false);
  spec.is_static = true;
  Expect({kNaN, kInfinity, -kInfinity}, spec, {0, 255, 0}, 1.0f, 0.0f);
}

TEST(EveryIsaMatchesTheReference) {
  ForEveryFastIsa([&](const Kernels& kernels, const Kernels& reference) {
    std::vector<QuantizeSpec> specs = {Spec(false),
                                       Spec(true),
                                       Spec(false, true),
                                       Spec(true, true),
                                       Spec(false, false, 1.2f),
                                       Spec(true, false, 0.7f)};
    for (int i = 0; i < 3; ++i) {
      specs.push_back(specs[i]);
      specs.back().is_static = true;
      specs.back().scale = 0.013f;
      specs.back().offset = i == 0 ? -1.5f : i == 1 ? -128.0f * 0.013f : 0.0f;
    }
    for (size_t i = 0, count = specs.size(); i < count; ++i) {
      specs.push_back(specs[i]);
      specs.back().bits = 4;
    }
    for (size_t cols : {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 312, 771}) {
      for (size_t rows : {1, 3}) {
        for (const QuantizeSpec& spec : specs) {
          for (int special = 0; special < 4; ++special) {
            const size_t ldx = cols + 5, ldc = cols + (special == 0 ? 0 : 9);
            auto x = RandomFloats((rows - 1) * ldx + cols, special == 1 ? 1e-42f : 1.0f);
            if (special == 2) x[x.size() - 1] = kInfinity;
            if (special == 3) x[x.size() / 2] = kNaN;
            CHECK_MSG(Same(QuantizeRows(kernels, x, ldx, rows, cols, ldc, spec),
                           QuantizeRows(reference, x, ldx, rows, cols, ldc, spec)),
                      "rows, " + std::to_string(cols) + " columns");
            CHECK_MSG(Same(QuantizeBlock(kernels, x, ldx, rows, cols, ldc, spec),
                           QuantizeBlock(reference, x, ldx, rows, cols, ldc, spec)),
                      "block, " + std::to_string(cols) + " columns");
          }
        }
      }
    }
  });
}

// Quotients at and one float beside every half-integer, where a division that is off by an ulp gives another code;
// ranges of all magnitudes, those included where the kernel must divide.
TEST(EveryIsaRoundsTiesAlike) {
  ForEveryFastIsa([&](const Kernels& kernels, const Kernels& reference) {
    for (int exponent : {-149, -140, -126, -100, -70, -61, -60, -59, -20, -3, 0, 1, 7, 40, 67, 68, 100, 119}) {
      for (int trial = 0; trial < 200; ++trial) {
        // Few bits (ties are exact), all but one, or any.
        const float mantissa = trial < 4    ? 1.0f + 0.25f * static_cast<float>(trial)
                               : trial < 8  ? 2.0f - static_cast<float>(trial - 3) * 0x1p-23f
                               : trial < 12 ? 1.0f + static_cast<float>(trial - 7) * 0x1p-23f
                                            : 1.0f + static_cast<float>(RandomInt(0, (1 << 23) - 1)) * 0x1p-23f;
        const float scale = std::ldexp(mantissa, exponent);
        for (const QuantizeSpec& spec :
             {Spec(false), Spec(true), Spec(false, false, 0.0f, 4), Spec(true, false, 0, 4)}) {
          const bool symmetric = spec.symmetric;
          const int high = (1 << (spec.bits - symmetric)) - 1, low = symmetric ? -high : 0;
          std::vector<float> x = {0.0f, static_cast<float>(high) * scale};
          for (int k = low; k < high; ++k) {
            const float half = (static_cast<float>(k) + 0.5f) * scale;
            for (float v : {std::nextafter(half, -kInfinity), half, std::nextafter(half, kInfinity)}) {
              if (std::fabs(v) <= x[1]) x.push_back(v);
            }
          }
          if (!symmetric && trial % 2) {
            for (float& v : x) v -= 77.0f * scale;
          }
          CHECK_MSG(Same(QuantizeRows(kernels, x, x.size(), 1, x.size(), x.size(), spec),
                         QuantizeRows(reference, x, x.size(), 1, x.size(), x.size(), spec)),
                    "scale " + std::to_string(scale));
        }
      }
    }
  });
}

TEST(PaddingIsZeroAndABlockOfOneRowIsARow) {
  ForEveryIsa([&](const Kernels& kernels) {
    const auto x = RandomFloats(45);
    for (bool symmetric : {false, true}) {
      const Result row = QuantizeRows(kernels, x, 45, 1, 45, 64, Spec(symmetric));
      const Result block = QuantizeBlock(kernels, x, 45, 1, 45, 64, Spec(symmetric));
      CHECK(row.codes == block.codes && row.scale == block.scale && row.offset == block.offset);
      for (size_t i = 45; i < 64; ++i) CHECK(row.codes[i] == 0);
    }
  });
}

}  // namespace
}  // namespace bitpress::test
