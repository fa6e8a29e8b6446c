// From a range (or a static scale) to the numbers that the coding loop needs. Scalar, shared by every ISA.
#pragma once

#include "kernels/numerics.h"

namespace bitpress {

// code = clamp(round_half_even((x - zero) / scale), low, high) + shift, or `constant` for every x where is_constant.
struct Codebook {
  float scale, offset;  // of value = scale * code + offset
  float zero;
  float low, high;
  int shift;
  bool is_constant;
  uint8_t constant;
};

// The smallest and largest value, before any clipping, and whether a NaN was among them.
struct Range {
  float low, high;
  bool has_nan;
};

// x clamped to [-clip, clip]; x itself where clip is 0.
float Clip(float x, float clip);

// range is not looked at where spec.is_static.
Codebook MakeCodebook(const QuantizeSpec& spec, const Range& range);

}  // namespace bitpress
