// Canonical packings by their definition, bit by bit and digit by digit: the oracle of everything that unpacks.
#pragma once

#include "kernels/packed_codes/packed_codes.h"
#include "tests/check.h"

namespace bitpress::test {

// The smallest and largest stored code that is valid, trits and two's complement set aside: ternary 0, 1, 2 for 0, +1,
// -1.
inline int LowestCode(const CodeFormat& format) { return format.symmetric ? 1 : 0; }
inline int HighestCode(const CodeFormat& format) {
  return format.scheme == CodeScheme::kTernary ? 2 : (1 << format.bits) - 1;
}

// codes: rows x cols of LowestCode..HighestCode.
inline std::vector<uint8_t> PackRows(const CodeFormat& format, const std::vector<int>& codes, size_t cols) {
  const size_t rows = codes.size() / cols;
  const size_t row_bytes = format.trits ? (cols + 4) / 5 : (cols * format.bits + 7) / 8;
  const int powers[5] = {1, 3, 9, 27, 81};
  std::vector<uint8_t> packed(rows * row_bytes);
  for (size_t i = 0; i < codes.size(); ++i) {
    uint8_t* row = packed.data() + i / cols * row_bytes;
    const size_t j = i % cols;
    if (format.trits) {
      row[j / 5] = static_cast<uint8_t>(row[j / 5] + codes[i] * powers[j % 5]);
      continue;
    }
    const int code = format.scheme == CodeScheme::kTernary && codes[i] == 2 ? 3 : codes[i];
    for (size_t bit = 0; bit < format.bits; ++bit) {
      const size_t at = j * format.bits + bit;
      row[at / 8] = static_cast<uint8_t>(row[at / 8] | (code >> bit & 1) << at % 8);
    }
  }
  return packed;
}

inline std::vector<int> RandomCodes(const CodeFormat& format, size_t count) {
  std::vector<int> codes(count);
  for (int& code : codes) code = RandomInt(LowestCode(format), HighestCode(format));
  return codes;
}

inline std::vector<CodeFormat> AllFormats() {
  std::vector<CodeFormat> formats = {{CodeScheme::kTernary, 2, false, false},
                                     {CodeScheme::kTernary, 2, true, false},
                                     {CodeScheme::kBinary, 1, false, false}};
  for (unsigned bits : {2, 3, 4, 8}) {
    formats.push_back({CodeScheme::kUniform, bits, false, true});
    formats.push_back({CodeScheme::kUniform, bits, false, false});
    if (bits < 8) formats.push_back({CodeScheme::kCodebook, bits, false, false});
  }
  return formats;
}

inline std::string Name(const CodeFormat& format) {
  const char* schemes[] = {"ternary", "uniform", "codebook", "binary"};
  return std::string(schemes[static_cast<int>(format.scheme)]) + " " + std::to_string(format.bits) +
         (format.trits ? " trits" : "") + (format.symmetric ? " symmetric" : "");
}

}  // namespace bitpress::test
