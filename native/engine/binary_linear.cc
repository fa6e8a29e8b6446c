#include "engine/binary_linear.h"

#include "kernels/integer_linear/integer_linear.h"

namespace bitpress {

size_t FirstInvalidRow(const uint8_t* bits, size_t rows, size_t cols) {
  const size_t row_bytes = BitRowBytes(cols);
  if (cols % 8 == 0) return rows;
  for (size_t row = 0; row < rows; ++row) {
    if (bits[(row + 1) * row_bytes - 1] >> cols % 8 != 0) return row;
  }
  return rows;
}

BinaryLinear MakeBinaryLinear(const PackedWeights& weights, BinaryLayout layout) {
  BinaryLinear linear;
  linear.weights = PackBinary(weights.codes, weights.outputs, weights.inputs, layout);
  std::vector<float> scale(weights.outputs);
  for (size_t n = 0; n < scale.size(); ++n) scale[n] = weights.scale[n / weights.group_rows];
  linear.affine = PackAffine(scale.data(), nullptr, weights.outputs);
  return linear;
}

}  // namespace bitpress
