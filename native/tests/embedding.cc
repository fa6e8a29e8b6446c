// Oracles: codes packed here, by the definitions of the packings; the reference, bit for bit, for the sums.
#include "kernels/embedding/embedding.h"

#include "tests/isas.h"
#include "tests/packing.h"

namespace bitpress::test {
namespace {

TEST(DecodingGivesTheScaledCodes) {
  ForEveryIsa([&](const Kernels& kernels) {
    for (size_t cols = 1; cols <= 70; ++cols) {
      std::vector<uint8_t> two_bit((cols + 3) / 4), trits((cols + 4) / 5);
      std::vector<float> expected(cols);
      const int powers[5] = {1, 3, 9, 27, 81};
      for (size_t j = 0; j < cols; ++j) {
        const int code = RandomInt(-1, 1);
        expected[j] = 0.3f * static_cast<float>(code);
        two_bit[j / 4] = static_cast<uint8_t>(two_bit[j / 4] | (code & 3) << (2 * (j % 4)));
        trits[j / 5] = static_cast<uint8_t>(trits[j / 5] + (code + 3) % 3 * powers[j % 5]);
      }
      std::vector<float> y(cols, -77.0f);
      kernels.decode_two_bit_row(two_bit.data(), cols, 0.3f, y.data());
      CHECK_MSG(SameBits(y, expected), std::string(kernels.isa) + " 2-bit, " + std::to_string(cols));
      y.assign(cols, -77.0f);
      kernels.decode_trits_row(trits.data(), cols, 0.3f, y.data());
      CHECK_MSG(SameBits(y, expected), std::string(kernels.isa) + " trits, " + std::to_string(cols));
    }
  });
}

TEST(DecodingUniformCodesMultipliesThenAdds) {
  ForEveryIsa([&](const Kernels& kernels) {
    for (const CodeFormat& format : AllFormats()) {
      if (format.scheme != CodeScheme::kUniform) continue;
      const int zero = format.symmetric ? 1 << (format.bits - 1) : 0;
      const float offset = format.symmetric ? 0.0f : -0.7f;
      for (size_t cols = 1; cols <= 70; ++cols) {
        const auto codes = RandomCodes(format, cols);
        const auto packed = PackRows(format, codes, cols);  // exactly as long: AddressSanitizer sees a read beyond
        std::vector<float> y(cols, -77.0f), expected(cols);
        for (size_t j = 0; j < cols; ++j) {
          const float product = 0.3f * static_cast<float>(codes[j] - zero);
          expected[j] = product + offset;
        }
        kernels.decode_uniform_row(packed.data(), cols, format.bits, zero, 0.3f, offset, y.data());
        CHECK_MSG(SameBits(y, expected), std::string(kernels.isa) + " " + Name(format) + ", " + std::to_string(cols));
      }
    }
  });
}

TEST(DecodingCodebookCodesGivesTheValueOfEach) {
  ForEveryIsa([&](const Kernels& kernels) {
    for (const CodeFormat& format : AllFormats()) {
      if (format.scheme != CodeScheme::kCodebook) continue;
      float values[16];
      for (float& value : values) value = RandomFloats(1)[0];
      for (size_t cols = 1; cols <= 70; ++cols) {
        const auto codes = RandomCodes(format, cols);
        const auto packed = PackRows(format, codes, cols);  // exactly as long: AddressSanitizer sees a read beyond
        std::vector<float> y(cols, -77.0f), expected(cols);
        for (size_t j = 0; j < cols; ++j) expected[j] = values[codes[j]];
        kernels.decode_codebook_row(packed.data(), cols, format.bits, values, y.data());
        CHECK_MSG(SameBits(y, expected), std::string(kernels.isa) + " " + Name(format) + ", " + std::to_string(cols));
      }
    }
  });
}

TEST(DecodingSignsGivesTheScaleOrItsOpposite) {
  ForEveryIsa([&](const Kernels& kernels) {
    for (size_t cols = 1; cols <= 70; ++cols) {
      const CodeFormat format{CodeScheme::kBinary, 1, false, false};
      const auto codes = RandomCodes(format, cols), others = RandomCodes(format, cols);
      // Exactly as long: AddressSanitizer sees a read beyond.
      const auto packed = PackRows(format, codes, cols), second = PackRows(format, others, cols);
      std::vector<float> y(cols, -77.0f), expected(cols);
      for (size_t j = 0; j < cols; ++j) expected[j] = codes[j] == 1 ? 0.3f : -0.3f;
      kernels.decode_binary_row(packed.data(), cols, 0.3f, y.data());
      CHECK_MSG(SameBits(y, expected), std::string(kernels.isa) + ", " + std::to_string(cols));
      // Scales of the same size too: their difference is +0.
      for (const float scale : {0.1f, 0.3f}) {
        y.assign(cols, -77.0f);
        std::vector<float> sum(cols);
        for (size_t j = 0; j < cols; ++j) sum[j] = expected[j] + (others[j] == 1 ? scale : -scale);
        kernels.decode_two_terms_row({packed.data(), second.data()}, cols, {0.3f, scale}, y.data());
        CHECK_MSG(SameBits(y, sum), std::string(kernels.isa) + " two terms, " + std::to_string(cols));
      }
    }
  });
}

TEST(EveryByteDecodesAlike) {
  ForEveryFastIsa([&](const Kernels& kernels, const Kernels& reference) {
    std::vector<uint8_t> bytes(256);
    for (int i = 0; i < 256; ++i) bytes[i] = static_cast<uint8_t>(i);
    std::vector<float> a(5 * 256), b(5 * 256);
    kernels.decode_trits_row(bytes.data(), a.size(), 1.0f, a.data());
    reference.decode_trits_row(bytes.data(), b.size(), 1.0f, b.data());
    CHECK(SameBits(a, b));
    kernels.decode_two_bit_row(bytes.data(), 4 * 256, 1.0f, a.data());
    reference.decode_two_bit_row(bytes.data(), 4 * 256, 1.0f, b.data());
    CHECK(SameBits(a, b));
  });
}

TEST(RowsAreAddedTypeFirst) {
  ForEveryIsa([&](const Kernels& kernels) {
    for (size_t cols : {1, 7, 8, 9, 26}) {
      const auto word = RandomFloats(cols), type = RandomFloats(cols, 1e-3f), position = RandomFloats(cols);
      auto y = word;
      kernels.add_rows(type.data(), position.data(), cols, y.data());
      for (size_t j = 0; j < cols; ++j) CHECK(SameBits(y[j], (word[j] + type[j]) + position[j]));
    }
  });
}

}  // namespace
}  // namespace bitpress::test
