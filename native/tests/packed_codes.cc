// Oracle: the packings' definitions, bit by bit and digit by digit (packing.h).
#include "kernels/packed_codes/packed_codes.h"

#include <algorithm>
#include <map>

#include "tests/packing.h"

namespace bitpress::test {
namespace {

// Those of integer linear layers, and signs.
std::vector<CodeFormat> EveryFormat() {
  std::vector<CodeFormat> formats = AllFormats();
  formats.push_back({CodeScheme::kBinary, 1, false, false});
  return formats;
}

// What UnpackCodes gives for a code of packing.h.
uint8_t Unpacked(const CodeFormat& format, int code) {
  return static_cast<uint8_t>(format.scheme == CodeScheme::kTernary && code == 2 ? 3 : code);
}

TEST(UnpackingInvertsPacking) {
  for (const CodeFormat& format : EveryFormat()) {
    for (size_t cols = 1; cols <= 70; ++cols) {
      const auto codes = RandomCodes(format, cols);
      const auto packed = PackRows(format, codes, cols);
      CHECK(PackedRowBytes(format, cols) == packed.size());
      std::vector<uint8_t> found(cols, 99);  // exactly as long: AddressSanitizer sees a write beyond
      CHECK_MSG(UnpackCodes(format, packed.data(), cols, found.data()), Name(format));
      for (size_t j = 0; j < cols; ++j) CHECK_MSG(found[j] == Unpacked(format, codes[j]), Name(format));
    }
  }
}

// Of one byte, every value; the number of codes in it, every one.
TEST(EveryByteIsValidExactlyWhereSomeCodesGiveIt) {
  for (const CodeFormat& format : EveryFormat()) {
    const size_t most = format.trits ? 5 : 8 / format.bits;
    for (size_t cols = 1; cols <= most; ++cols) {
      std::map<int, std::vector<int>> valid;
      std::vector<int> codes(cols, LowestCode(format));
      for (bool more = true; more;) {
        valid[PackRows(format, codes, cols)[0]] = codes;
        size_t j = 0;
        while (j < cols && codes[j] == HighestCode(format)) codes[j++] = LowestCode(format);
        more = j < cols;
        if (more) ++codes[j];
      }
      for (int byte = 0; byte < 256; ++byte) {
        const auto row = static_cast<uint8_t>(byte);
        std::vector<uint8_t> found(cols, 99);
        CHECK_MSG(UnpackCodes(format, &row, cols, found.data()) == (valid.count(byte) != 0), Name(format));
        for (size_t j = 0; valid.count(byte) != 0 && j < cols; ++j) {
          CHECK(found[j] == Unpacked(format, valid[byte][j]));
        }
      }
    }
  }
}

TEST(InvalidCodesAndPaddingAreFoundAnywhere) {
  for (const CodeFormat& format : EveryFormat()) {
    for (size_t cols : {1, 3, 5, 8, 9, 40, 41, 43}) {
      const auto packed = PackRows(format, RandomCodes(format, cols), cols);
      std::vector<uint8_t> found(cols);
      const auto refused = [&](size_t byte, int value) {
        auto changed = packed;
        changed[byte] = static_cast<uint8_t>(value);
        return !UnpackCodes(format, changed.data(), cols, found.data());
      };
      const size_t used = format.trits ? 8 : (cols * format.bits - 1) % 8 + 1;  // bits of the last byte
      if (used < 8) CHECK(refused(packed.size() - 1, packed.back() | 1 << used));
      if (used < 8) CHECK(refused(packed.size() - 1, packed.back() | 128));
      for (size_t byte = 0; byte < packed.size(); ++byte) {
        if (format.trits) CHECK(refused(byte, 243));
        if (format.scheme == CodeScheme::kTernary && !format.trits) CHECK(refused(byte, (packed[byte] & ~3) | 2));
        if (format.symmetric && byte % format.bits == 0) CHECK(refused(byte, packed[byte] & -(1 << format.bits)));
      }
    }
  }
}

}  // namespace
}  // namespace bitpress::test
