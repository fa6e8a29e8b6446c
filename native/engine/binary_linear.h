// A linear layer of one-bit weights and one-bit activations, as the engine holds it.
#pragma once

#include <cmath>
#include <vector>

#include "kernels/binary_linear/binary_linear.h"
#include "kernels/sign_bits/fold_threshold.h"

namespace bitpress {

struct PackedWeights;

// y = fma(float(dot), scale, bias), or of it only one bit, which is dot >= threshold.
struct BinaryLinear {
  BinaryMatrix weights;
  BitSet input_set = BitSet::kSigns;
  BinaryAffine affine;          // empty where only a bit is used
  BinaryThresholds thresholds;  // empty where y is
};

// The first row that has a bit set past its last column, or `rows`. Signs have no other invalid form.
size_t FirstInvalidRow(const uint8_t* bits, size_t rows, size_t cols);

// The weights, of one term, with their scales, one an output, and no bias.
BinaryLinear MakeBinaryLinear(const PackedWeights& weights, BinaryLayout layout);

// Folds scale and bias into thresholds, in which float arithmetic has no part any more: the bit of output n is
// decide(n, y), of which each threshold is found by evaluating it on the y of dot products. decide turns at most once,
// from false to true as y grows; scales are not negative, so it does the same as dot grows and nothing is flipped.
template <class Decide>
void FoldOutputs(const Decide& decide, BinaryLinear* linear) {
  std::vector<int32_t> thresholds(linear->weights.outputs);
  for (size_t n = 0; n < thresholds.size(); ++n) {
    const float scale = linear->affine.scale[n], bias = linear->affine.bias[n];
    const auto bit = [&](int32_t dot) { return decide(n, std::fma(static_cast<float>(dot), scale, bias)); };
    thresholds[n] = FoldDot(linear->weights.inputs, bit).threshold;
  }
  linear->thresholds = PackThresholds(thresholds.data(), nullptr, thresholds.size());
  linear->affine = {};
}

}  // namespace bitpress
