#include "engine/packed_codes.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace bitpress {
namespace {

constexpr size_t kMaxCodesPerByte = 5;
constexpr int kTritsLimit = 243;  // 3^5
using ByteCodes = std::array<std::array<int8_t, kMaxCodesPerByte>, 256>;

constexpr ByteCodes TwoBitTable() {
  ByteCodes table{};
  constexpr int8_t kCode[4] = {0, 1, 0, -1};  // 10 does not occur in a valid row
  for (size_t byte = 0; byte < 256; ++byte)
    for (size_t j = 0; j < kCodesPerByte2Bit; ++j) table[byte][j] = kCode[byte >> (2 * j) & 3];
  return table;
}

constexpr ByteCodes TritsTable() {
  ByteCodes table{};
  constexpr int8_t kCode[3] = {0, 1, -1};
  for (size_t byte = 0; byte < kTritsLimit; ++byte) {
    size_t rest = byte;
    for (size_t j = 0; j < kCodesPerByteTrits; ++j, rest /= 3) table[byte][j] = kCode[rest % 3];
  }
  return table;
}

constexpr ByteCodes kTwoBit = TwoBitTable();
constexpr ByteCodes kTrits = TritsTable();

bool TwoBitRowIsValid(const uint8_t* row, size_t cols) {
  const size_t bytes = PackedRowBytes(cols, BP_PACK_2BIT);
  uint8_t invalid = 0;  // gathers pairs whose high bit is set and low bit is not
  for (size_t i = 0; i < bytes; ++i) invalid |= static_cast<uint8_t>((row[i] >> 1) & ~row[i] & 0x55);
  const size_t used = cols % kCodesPerByte2Bit;
  return invalid == 0 && (used == 0 || row[bytes - 1] >> (2 * used) == 0);
}

bool TritsRowIsValid(const uint8_t* row, size_t cols) {
  const size_t bytes = PackedRowBytes(cols, BP_PACK_TRITS);
  uint8_t largest = 0;
  for (size_t i = 0; i < bytes; ++i) largest = std::max(largest, row[i]);
  int limit = kTritsLimit;  // of the last byte: 3^(digits in use)
  if (cols % kCodesPerByteTrits != 0) {
    limit = 1;
    for (size_t j = 0; j < cols % kCodesPerByteTrits; ++j) limit *= 3;
  }
  return largest < kTritsLimit && row[bytes - 1] < limit;
}

}  // namespace

size_t PackedRowBytes(size_t cols, bp_packing packing) {
  const size_t per_byte = packing == BP_PACK_2BIT ? kCodesPerByte2Bit : kCodesPerByteTrits;
  return cols / per_byte + (cols % per_byte != 0);
}

bool PackedRowIsValid(const uint8_t* row, size_t cols, bp_packing packing) {
  return packing == BP_PACK_2BIT ? TwoBitRowIsValid(row, cols) : TritsRowIsValid(row, cols);
}

void UnpackRow(const uint8_t* row, size_t cols, bp_packing packing, int8_t* codes) {
  const ByteCodes& table = packing == BP_PACK_2BIT ? kTwoBit : kTrits;
  const size_t per_byte = packing == BP_PACK_2BIT ? kCodesPerByte2Bit : kCodesPerByteTrits;
  for (size_t j = 0; j < cols; j += per_byte) {
    std::memcpy(codes + j, table[*row++].data(), std::min(per_byte, cols - j));
  }
}

}  // namespace bitpress
