// What unpacking a panel (layout.h) is on every ISA; how a block is unpacked is the ISA's own. For files of ISAs only.
#pragma once

#include "kernels/integer_linear/layout.h"

namespace bitpress {
namespace {

// The tables of look-ups by four bits: of the low and of the high two bits of a nibble; 3 and 4 bits: `low` of the
// whole nibble.
struct NibbleTables {
  int8_t low[16], high[16];
  explicit NibbleTables(const IntegerMatrix& w) {
    for (int nibble = 0; nibble < 16; ++nibble) {
      low[nibble] = w.table[w.bits == 2 ? nibble & 3 : nibble];
      high[nibble] = w.table[nibble >> 2];
    }
  }
};

// Where the signed bytes of `blocks` blocks are: in `panel`, or where they were if they are not packed (8 bits).
// Tables are an ISA's, in whose namespace stand UnpackBlock2, 3 and 4(block, tables, panel).
template <class Tables>
inline const int8_t* UnpackBlocks(const uint8_t* packed, unsigned bits, size_t blocks, const Tables& tables,
                                  int8_t* panel) {
  if (bits == 8) return reinterpret_cast<const int8_t*>(packed);
  const auto all = [&](auto unpack) {
    for (size_t b = 0; b < blocks; ++b) unpack(packed + b * BlockBytes(bits), panel + b * BlockBytes(8));
  };
  switch (bits) {
    case 2:
      all([&](const uint8_t* block, int8_t* to) { UnpackBlock2(block, tables, to); });
      break;
    case 3:
      all([&](const uint8_t* block, int8_t* to) { UnpackBlock3(block, tables, to); });
      break;
    default:
      all([&](const uint8_t* block, int8_t* to) { UnpackBlock4(block, tables, to); });
  }
  return panel;
}

}  // namespace
}  // namespace bitpress
