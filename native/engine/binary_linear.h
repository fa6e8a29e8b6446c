// A linear layer of one-bit weights and one-bit activations, as the engine holds it.
#pragma once

#include <vector>

#include "kernels/binary_linear/binary_linear.h"

namespace bitpress {

struct PackedWeights;

// y = fma(float(dot), scale, bias), or of it only sgn(y), which is dot >= threshold.
struct BinaryLinear {
  BinaryMatrix weights;
  BinaryAffine affine;          // empty where only the sign is used
  BinaryThresholds thresholds;  // empty where y is
};

// The first row that has a bit set past its last column, or `rows`. Signs have no other invalid form.
size_t FirstInvalidRow(const uint8_t* bits, size_t rows, size_t cols);

// The weights with their scales, one an output.
BinaryLinear MakeBinaryLinear(const PackedWeights& weights);

// Adds the bias, one number an output. signs_only: folds it with the scales into thresholds, in which float arithmetic
// has no part any more: each is found by evaluating sgn(fma(float(dot), scale, bias)) itself.
void SetBias(const std::vector<float>& bias, bool signs_only, BinaryLinear* linear);

}  // namespace bitpress
