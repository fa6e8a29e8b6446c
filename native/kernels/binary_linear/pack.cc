#include <algorithm>
#include <cstring>

#include "kernels/binary_linear/layout.h"

namespace bitpress {
namespace {

constexpr unsigned Ones(unsigned nibble) {
  return (nibble & 1) + (nibble >> 1 & 1) + (nibble >> 2 & 1) + (nibble >> 3 & 1);
}

constexpr PairTables MakeTables(BitSet set) {
  PairTables tables{};
  for (unsigned pair = 0; pair < 256; ++pair) {
    const unsigned first = pair % 16, second = pair / 16;
    for (unsigned w = 0; w < 16; ++w) {
      const unsigned low = set == BitSet::kSigns ? Ones(first ^ w) : Ones(first & w);
      const unsigned high = set == BitSet::kSigns ? Ones(second ^ w) : Ones(second & w);
      tables.bytes[pair * 16 + w] = static_cast<uint8_t>(low + 16 * high);
    }
  }
  return tables;
}

constexpr PairTables kMismatches = MakeTables(BitSet::kSigns);
constexpr PairTables kOnesInCommon = MakeTables(BitSet::kZeroOne);

size_t PanelsFor(size_t outputs) { return RoundUp(outputs, kBitPanel) / kBitPanel; }

// The bits of a panel's outputs.
struct PanelRows {
  const uint8_t* at[kBitPanel];
};

void PackNibbles(const PanelRows& rows, size_t inputs, uint8_t* panel) {
  for (size_t j = 0; j < BitRowBytes(inputs); ++j) {
    // A byte of a row is two groups; the last may have one only.
    uint8_t* first = panel + 2 * j * sizeof(BinaryGroup);
    uint8_t* second = first + sizeof(BinaryGroup);
    const bool has_second = (2 * j + 1) * kGroupInputs < inputs;
    for (size_t n = 0; n < 32; ++n) {
      const unsigned low = rows.at[n][j], high = rows.at[n + 32][j];
      const size_t at = PositionInGroup(n).byte;
      first[at] = static_cast<uint8_t>((low & 15) | high << 4);
      if (has_second) second[at] = static_cast<uint8_t>(low >> 4 | (high & 0xF0));
    }
  }
}

void PackWords(const PanelRows& rows, size_t inputs, uint8_t* panel) {
  const size_t row_bytes = BitRowBytes(inputs), word = sizeof(uint32_t);
  for (size_t n = 0; n < kBitPanel; ++n) {
    for (size_t j = 0; j < row_bytes; j += word) {
      std::memcpy(panel + j / word * sizeof(BinaryWords) + n * word, rows.at[n] + j, std::min(word, row_bytes - j));
    }
  }
}

}  // namespace

const PairTables& TablesFor(BitSet set) { return set == BitSet::kSigns ? kMismatches : kOnesInCommon; }

BinaryMatrix PackBinary(const uint8_t* bits, size_t outputs, size_t inputs, BinaryLayout layout) {
  BinaryMatrix matrix;
  matrix.outputs = outputs;
  matrix.inputs = inputs;
  matrix.panels = PanelsFor(outputs);
  matrix.triples = TriplesFor(inputs);
  const bool words = layout == BinaryLayout::kWords;
  matrix.panel_bytes =
      words ? WordsFor(inputs) * sizeof(BinaryWords) : matrix.triples * kTripleGroups * sizeof(BinaryGroup);
  matrix.packed = AllocateOnCacheLine(matrix.panels * matrix.panel_bytes);
  std::fill_n(matrix.packed.get(), matrix.panels * matrix.panel_bytes, uint8_t{0});
  const size_t row_bytes = BitRowBytes(inputs);
  const std::vector<uint8_t> zeros(row_bytes);
  for (size_t p = 0; p < matrix.panels; ++p) {
    PanelRows rows;
    for (size_t n = 0; n < kBitPanel; ++n) {
      rows.at[n] = p * kBitPanel + n < outputs ? bits + (p * kBitPanel + n) * row_bytes : zeros.data();
    }
    (words ? PackWords : PackNibbles)(rows, inputs, matrix.packed.get() + p * matrix.panel_bytes);
  }
  return matrix;
}

BinaryAffine PackAffine(const float* scale, const float* bias, size_t outputs) {
  BinaryAffine affine;
  affine.scale.resize(PanelsFor(outputs) * kBitPanel);
  affine.bias.resize(affine.scale.size());
  std::copy(scale, scale + outputs, affine.scale.begin());
  if (bias) std::copy(bias, bias + outputs, affine.bias.begin());
  return affine;
}

BinaryThresholds PackThresholds(const int32_t* threshold, const uint8_t* flip, size_t outputs) {
  BinaryThresholds thresholds;
  // |dot| <= kMaxBinaryInputs: nothing is above INT16_MAX and everything above INT16_MIN, so clamping changes no bit.
  thresholds.above.assign(PanelsFor(outputs) * kBitPanel, INT16_MAX);
  thresholds.flip.resize(thresholds.above.size());
  for (size_t n = 0; n < outputs; ++n) {
    const int64_t above = int64_t{threshold[n]} - 1;
    thresholds.above[n] = static_cast<int16_t>(std::clamp<int64_t>(above, INT16_MIN, INT16_MAX));
    if (flip && flip[n]) thresholds.flip[n] = -1;
  }
  return thresholds;
}

size_t BinaryLinearScratchBytes(const BinaryMatrix& w) {
  // Offsets of nibbles, 16 bits for each 4 inputs of two rows, take twice as much as rows in whole words.
  return RoundUp(kBitRowBlock / 2 * OffsetStride(w.triples) * sizeof(uint16_t), 64);
}

}  // namespace bitpress
