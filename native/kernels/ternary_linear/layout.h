// The packed form of a ternary panel: blocks of kBlockInputs inputs x kPanelColumns outputs, 2 bits a weight.
//
// A kernel wants registers of 8 columns x 4 inputs (kPanelDepth), as signed bytes. A block holds four of them: byte i
// of the block carries byte i of each, register r in bits 2r and 2r+1 (0, +1 and -1 are 00, 01, 11):
//   register 0: inputs 0-3, columns 0-7     register 1: inputs 0-3, columns 8-15
//   register 2: inputs 4-7, columns 0-7     register 3: inputs 4-7, columns 8-15
// so that one load, three shifts and a table look-up each give all four.
#pragma once

#include "kernels/ternary_linear/ternary_linear.h"

namespace bitpress {

constexpr size_t kBlockInputs = 8;

struct TernaryBlock {
  uint8_t bytes[32];
};
static_assert(sizeof(TernaryBlock) * 8 == 2 * kBlockInputs * kPanelColumns, "2 bits a weight");
static_assert(kBlockInputs % kPanelDepth == 0 && kPanelColumns == 16, "the registers described above");

// Where the weight of input k (within its block) and output n (within its panel) lies.
struct TernaryPosition {
  size_t byte;
  unsigned shift;
};
constexpr TernaryPosition PositionInBlock(size_t k, size_t n) {
  const size_t reg = k / kPanelDepth * 2 + n / 8;
  return {n % 8 * kPanelDepth + k % kPanelDepth, static_cast<unsigned>(2 * reg)};
}

}  // namespace bitpress
