#include "engine/binary_linear.h"

#include <algorithm>
#include <cmath>

#include "kernels/integer_linear/integer_linear.h"
#include "kernels/sign_bits/fold_threshold.h"

namespace bitpress {

size_t FirstInvalidRow(const uint8_t* bits, size_t rows, size_t cols) {
  const size_t row_bytes = BitRowBytes(cols);
  if (cols % 8 == 0) return rows;
  for (size_t row = 0; row < rows; ++row) {
    if (bits[(row + 1) * row_bytes - 1] >> cols % 8 != 0) return row;
  }
  return rows;
}

BinaryLinear MakeBinaryLinear(const PackedWeights& weights) {
  BinaryLinear linear;
  linear.weights = PackBinary(weights.codes, weights.outputs, weights.inputs);
  std::vector<float> scale(weights.outputs);
  for (size_t n = 0; n < scale.size(); ++n) scale[n] = weights.scale[n / weights.group_rows];
  linear.affine = PackAffine(scale.data(), nullptr, weights.outputs);
  return linear;
}

void SetBias(const std::vector<float>& bias, bool signs_only, BinaryLinear* linear) {
  if (!signs_only) {
    std::copy(bias.begin(), bias.end(), linear->affine.bias.begin());
    return;
  }
  std::vector<int32_t> thresholds(bias.size());
  for (size_t n = 0; n < bias.size(); ++n) {
    // Scales are positive, so the sign never turns back: nothing to flip.
    const auto is_positive = [&](int32_t dot) {
      return std::fma(static_cast<float>(dot), linear->affine.scale[n], bias[n]) >= 0.0f;
    };
    thresholds[n] = FoldDot(linear->weights.inputs, is_positive).threshold;
  }
  linear->thresholds = PackThresholds(thresholds.data(), nullptr, bias.size());
  linear->affine = {};
}

}  // namespace bitpress
