// The packed form of a panel: blocks of kBlockInputs inputs x kPanelColumns outputs, `bits` bits a weight.
//
// A kernel wants registers of 8 columns x 4 inputs (kPanelDepth), as signed bytes; byte 4 * column + input. A block is
// eight of them, register 2 * step + half: inputs 4 * step to + 3, columns 8 * half to + 7. A block consists of vectors
// of 32 bytes, and byte i of every vector carries fields of byte i of the registers, so that one load and a shift and a
// table look-up for each give several registers:
//   8 bits  vector v: register v, as the signed weight itself
//   4 bits  vector v: register 2v in bits 0-3, 2v + 1 in bits 4-7
//   2 bits  vector v: registers 4v to 4v + 3 in bits 0-1, 2-3, 4-5, 6-7
//   3 bits  vectors 0 and 1: the low two bits of each code as with 2 bits; vector 2: the high bit of register r in bit
//   r
#pragma once

#include "kernels/integer_linear/integer_linear.h"

namespace bitpress {

constexpr size_t kBlockInputs = 16;
constexpr size_t kVectorBytes = 32;
static_assert(kGroupGranularity % kBlockInputs == 0, "a group consists of whole blocks");

constexpr size_t BlockBytes(unsigned bits) { return kVectorBytes * bits; }
static_assert(BlockBytes(3) * 8 == 3 * kBlockInputs * kPanelColumns, "3 bits a weight");

// The field of input k (within its block) and output n (within its panel).
inline unsigned FieldInBlock(const uint8_t* block, unsigned bits, size_t k, size_t n) {
  const size_t reg = k / kPanelDepth * 2 + n / 8, byte = n % 8 * kPanelDepth + k % kPanelDepth;
  const auto vector = [&](size_t v) -> unsigned { return block[v * kVectorBytes + byte]; };
  switch (bits) {
    case 2:
      return vector(reg / 4) >> (2 * (reg % 4)) & 3;
    case 3:
      return (vector(reg / 4) >> (2 * (reg % 4)) & 3) | (vector(2) >> reg & 1) << 2;
    case 4:
      return vector(reg / 2) >> (4 * (reg % 2)) & 15;
    default:
      return vector(reg);
  }
}

}  // namespace bitpress
