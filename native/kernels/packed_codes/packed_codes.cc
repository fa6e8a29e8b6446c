#include "kernels/packed_codes/packed_codes.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace bitpress {
namespace {

constexpr size_t kCodesPerTritsByte = 5;
constexpr int kTritsLimit = 243;  // 3^5

// Eight codes of Bits bits, the first lowest, to one a byte: halves are moved apart, then quarters, then eighths.
template <unsigned Bits>
uint64_t Spread(uint64_t x) {
  constexpr uint64_t kOne = (uint64_t{1} << Bits) - 1, kTwo = (uint64_t{1} << 2 * Bits) - 1;
  constexpr uint64_t kFour = (uint64_t{1} << 4 * Bits) - 1;
  x = (x & kFour) | x >> 4 * Bits << 32;
  x = (x & kTwo * 0x0000000100000001) | (x & (kTwo << 2 * Bits) * 0x0000000100000001) << (16 - 2 * Bits);
  return (x & kOne * 0x0001000100010001) | (x & (kOne << Bits) * 0x0001000100010001) << (8 - Bits);
}

// Eight codes are Bits bytes, whatever Bits is. False where the padding is not zero.
template <unsigned Bits>
bool UnpackBits(const uint8_t* row, size_t cols, uint8_t* codes) {
  size_t j = 0;
  for (; j + 8 <= cols; j += 8, row += Bits) {
    uint64_t packed = 0;
    for (unsigned i = 0; i < Bits; ++i) packed |= uint64_t{row[i]} << (8 * i);
    const uint64_t spread = Spread<Bits>(packed);
    std::memcpy(codes + j, &spread, sizeof(spread));
  }
  if (j == cols) return true;
  const size_t used = (cols - j) * Bits;
  uint64_t packed = 0;
  std::memcpy(&packed, row, (used + 7) / 8);
  const uint64_t spread = Spread<Bits>(packed);
  std::memcpy(codes + j, &spread, cols - j);
  return packed >> used == 0;
}

using TritCodes = std::array<std::array<uint8_t, kCodesPerTritsByte>, 256>;
constexpr TritCodes MakeTritCodes() {
  TritCodes table{};
  constexpr uint8_t kCode[3] = {0, 1, 3};
  for (size_t byte = 0; byte < kTritsLimit; ++byte) {
    for (size_t j = 0, rest = byte; j < kCodesPerTritsByte; ++j, rest /= 3) table[byte][j] = kCode[rest % 3];
  }
  return table;
}
constexpr TritCodes kTrits = MakeTritCodes();

bool UnpackTrits(const uint8_t* row, size_t cols, uint8_t* codes) {
  int largest = 0;
  size_t j = 0;
  for (; j + kCodesPerTritsByte <= cols; j += kCodesPerTritsByte, ++row) {
    std::memcpy(codes + j, kTrits[*row].data(), kCodesPerTritsByte);
    largest = std::max<int>(largest, *row);
  }
  int limit = 1;  // of a last byte that is not full: 3^(digits in use)
  for (size_t k = j; k < cols; ++k) limit *= 3;
  if (j < cols) std::memcpy(codes + j, kTrits[*row].data(), cols - j);
  return largest < kTritsLimit && (j == cols || *row < limit);
}

bool Contains(const uint8_t* codes, size_t cols, uint8_t code) {
  uint8_t found = 0;
  for (size_t j = 0; j < cols; ++j) found |= codes[j] == code;
  return found != 0;
}

}  // namespace

size_t PackedRowBytes(const CodeFormat& format, size_t cols) {
  if (format.trits) return cols / kCodesPerTritsByte + (cols % kCodesPerTritsByte != 0);
  return cols / 8 * format.bits + (cols % 8 * format.bits + 7) / 8;
}

bool UnpackCodes(const CodeFormat& format, const uint8_t* row, size_t cols, uint8_t* codes) {
  bool valid = true;
  if (format.trits) return UnpackTrits(row, cols, codes);
  switch (format.bits) {
    case 1:
      valid = UnpackBits<1>(row, cols, codes);
      break;
    case 2:
      valid = UnpackBits<2>(row, cols, codes);
      break;
    case 3:
      valid = UnpackBits<3>(row, cols, codes);
      break;
    case 4:
      valid = UnpackBits<4>(row, cols, codes);
      break;
    default:
      std::memcpy(codes, row, cols);
  }
  if (format.scheme == CodeScheme::kTernary) return valid && !Contains(codes, cols, 2);
  return valid && !(format.symmetric && Contains(codes, cols, 0));
}

}  // namespace bitpress
