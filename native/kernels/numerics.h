// What every kernel of every ISA agrees on, so that all of them give the same bits.
//
// - Multiply-adds of floats are fused (std::fma or the ISA's own); nothing else is: build with -ffp-contract=off.
// - Division is IEEE division, never multiplication by a reciprocal; sqrt is IEEE sqrt; rounding is half to even.
// - A sum over n floats runs in kLanes running sums, element i going to lane i % kLanes, in order; the lanes are then
//   added pairwise: lane[j] += lane[j + w] for w = 8, 4, 2, 1. Elements past the end count as +0.0f.
// - A float matrix product is one fma chain per output, in order of the inner index, starting at +0.0f.
// - Integers are exact, so their order is free.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitpress {

// Two AVX2 registers, one AVX-512 register, four NEON registers: wide enough to hide the add latency on each.
constexpr size_t kLanes = 16;

// How one activation point is quantized: value = scale * code + offset.
struct QuantizeSpec {
  unsigned bits = 8;         // a code, 8 or 4; the comments below are of 8
  bool symmetric = false;    // codes 1..255 around 128, else 0..255 from the minimum
  bool nonnegative = false;  // attention probabilities: offset 0; symmetric uses codes 0..127
  bool is_static = false;    // use `scale` and `offset` below instead of the data's own range
  float clip = 0.0f;         // clamp to [-clip, clip] first; 0 means no clamp
  float scale = 1.0f;
  float offset = 0.0f;
};

constexpr size_t RoundUp(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace bitpress
