// Slow reference: one output at a time, each weight and activation read from its bit.
#include <algorithm>
#include <cmath>

#include "kernels/binary_linear/layout.h"

namespace bitpress::reference {
namespace {

bool Bit(const uint8_t* row, size_t j) { return row[j / 8] >> (j % 8) & 1; }

bool WeightBit(const BinaryMatrix& w, size_t n, size_t k) {
  const NibblePosition at = PositionInGroup(n % kBitPanel);
  const uint8_t* group = w.packed.get() + n / kBitPanel * w.panel_bytes + k / kGroupInputs * sizeof(BinaryGroup);
  return group[at.byte] >> (at.shift + k % kGroupInputs) & 1;
}

int Dot(const BinaryInput& x, size_t row, const BinaryMatrix& w, size_t n) {
  int dot = 0;
  for (size_t k = 0; k < w.inputs; ++k) {
    const bool bit = Bit(x.bits + row * x.stride, k);
    const int value = bit ? 1 : x.set == BitSet::kSigns ? -1 : 0;
    dot += WeightBit(w, n, k) ? value : -value;
  }
  return dot;
}

}  // namespace

void BinaryLinearFloat(const BinaryInput& x, const BinaryMatrix& w, const BinaryAffine& affine, size_t panel_begin,
                       size_t panel_end, float* y, size_t ldy, void*) {
  const size_t end = std::min(panel_end * kBitPanel, w.outputs);
  for (size_t row = 0; row < x.rows; ++row) {
    for (size_t n = panel_begin * kBitPanel; n < end; ++n) {
      y[row * ldy + n] = std::fma(static_cast<float>(Dot(x, row, w, n)), affine.scale[n], affine.bias[n]);
    }
  }
}

void BinaryLinearBits(const BinaryInput& x, const BinaryMatrix& w, const BinaryThresholds& thresholds,
                      size_t panel_begin, size_t panel_end, uint8_t* y, size_t ldy, void*) {
  const size_t end = std::min(panel_end * kBitPanel, w.outputs);
  for (size_t row = 0; row < x.rows; ++row) {
    uint8_t* bits = y + row * ldy;
    std::fill(bits + panel_begin * kBitPanel / 8, bits + panel_end * kBitPanel / 8, uint8_t{0});
    for (size_t n = panel_begin * kBitPanel; n < end; ++n) {
      const bool bit = (Dot(x, row, w, n) > thresholds.above[n]) != (thresholds.flip[n] != 0);
      bits[n / 8] |= static_cast<uint8_t>(bit << (n % 8));
    }
  }
}

}  // namespace bitpress::reference
