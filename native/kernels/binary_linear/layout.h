// The packed forms of a binary panel, the tables that one of them indexes, and the scratch of a call.
//
// Nibbles. Four inputs of one output are a nibble, which a kernel uses as an index of 16-byte tables (`vpshufb`), for
// 32 outputs at a time. A group holds the nibbles of kGroupInputs inputs for the kBitPanel outputs of a panel: the low
// nibbles of its 32 bytes are outputs 0-31, the high ones 32-63. Byte 2 i is output i and byte 2 i + 1 output 16 + i,
// so that the even and the odd bytes of a register, widened to 16 bits, are outputs in order.
//
// Words. 32 inputs of one output are a word, as they lie in a row of bits; the words of the kBitPanel outputs follow
// each other. A kernel with an instruction that counts the bits of each word has the outputs in the lanes of a
// register.
#pragma once

#include "kernels/binary_linear/binary_linear.h"

namespace bitpress {

constexpr size_t kGroupInputs = 4;
// The kernels take three groups a step.
constexpr size_t kTripleGroups = 3;

struct BinaryGroup {
  uint8_t bytes[32];
};
static_assert(sizeof(BinaryGroup) * 8 == kGroupInputs * kBitPanel, "1 bit a weight");

constexpr size_t TriplesFor(size_t inputs) {
  return RoundUp(inputs, kTripleGroups * kGroupInputs) / (kTripleGroups * kGroupInputs);
}

struct BinaryWords {
  uint32_t outputs[kBitPanel];
};
constexpr size_t kWordInputs = 32;
static_assert(sizeof(BinaryWords) * 8 == kWordInputs * kBitPanel, "1 bit a weight");

constexpr size_t WordsFor(size_t inputs) { return RoundUp(inputs, kWordInputs) / kWordInputs; }

// Where output n (within its panel) lies in a group.
struct NibblePosition {
  size_t byte;
  unsigned shift;
};
constexpr NibblePosition PositionInGroup(size_t n) { return {n % 16 * 2 + n / 16 % 2, n / 32 == 0 ? 0u : 4u}; }

// What a group contributes to the counts of two activation rows. Entry w of the table at 16 * (nibble of the first row
// + 16 * nibble of the second): the count for weights w in the first row, plus 16 times that in the second. A count is
// the number of mismatches (signs) or of ones in common (zero, one); at most 4, so the two never meet.
struct PairTables {
  alignas(64) uint8_t bytes[256 * 16];
};
const PairTables& TablesFor(BitSet set);

// dot = base + step * count; base is of a row with `ones` ones.
constexpr int kSignStep = -2, kZeroOneStep = 2;
constexpr int BaseOf(BitSet set, size_t inputs, size_t ones) {
  return set == BitSet::kSigns ? static_cast<int>(inputs) : -static_cast<int>(ones);
}
constexpr int StepOf(BitSet set) { return set == BitSet::kSigns ? kSignStep : kZeroOneStep; }

// Rows that share one unpacking of a panel, which costs as much as two rows: 3 %.
constexpr size_t kBitRowBlock = 64;
// Offsets into the tables are written 32 at a time.
constexpr size_t OffsetStride(size_t triples) { return RoundUp(triples * kTripleGroups, 32); }

}  // namespace bitpress
