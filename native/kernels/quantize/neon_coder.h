// Ranges and codes of sixteen floats, shared by the kernels that quantize. For neon.cc files only.
#pragma once

#include "kernels/quantize/codebook.h"
#include "kernels/simd/neon.h"

namespace bitpress::neondot {

// The range of what was added, lane by lane.
struct RangeSearch {
  F32x16 low = F32x16::Broadcast(__builtin_inff());
  F32x16 high = F32x16::Broadcast(-__builtin_inff());
  uint32x4_t number = vdupq_n_u32(0xFFFFFFFFu);  // zero in a lane, of any of the four registers, that met a NaN

  void Add(F32x16 x) {
    const auto equal = [](F32 v) { return vceqq_f32(v.v, v.v); };
    number = vandq_u32(number, vandq_u32(vandq_u32(equal(x.a), equal(x.b)), vandq_u32(equal(x.c), equal(x.d))));
    low = Min(x, low);
    high = Max(x, high);
  }
  // The first element again in the lanes past the end: it changes no minimum or maximum.
  void AddRow(const float* x, size_t cols) {
    ForSixteens(cols, [&](size_t i, size_t count) {
      const F32x16 values = LoadFirst(x + i, count);
      Add(count == kLanes ? values : SelectMask(TailMask(count), values, F32x16::Broadcast(x[0])));
    });
  }
  // One range of all lanes, in every lane.
  Range<F32> Whole() const {
    const float poison = vminvq_u32(number) == 0 ? __builtin_nanf("") : 0.0f;
    return {F32::Broadcast(ReduceMin(low)), F32::Broadcast(ReduceMax(high)), F32::Broadcast(poison)};
  }
};

// Codes by the formula of codebook.h.
class Coder {
 public:
  Coder(const QuantizeSpec& spec, const Codebook<F32>& book)
      : clip_(spec.clip), zero_(Same(book.zero)), scale_(Same(book.scale)) {
    const CodeLimits<F32> limits(spec);
    low_ = Same(limits.low);
    high_ = Same(limits.high);
    const I32 shift = {vdupq_n_s32(limits.shift)};
    shift_ = {shift, shift, shift, shift};
  }

  // Clamped before it is rounded, which is the same as the limits are integers. Max takes `low` for a NaN.
  I32x16 Codes(F32x16 x) const {
    const F32x16 quotient = (Clip(x, clip_) - zero_) / scale_;
    return RoundToInt(Min(Max(quotient, low_), high_)) + shift_;
  }

 private:
  static F32x16 Same(F32 x) { return {x, x, x, x}; }

  float clip_;
  F32x16 zero_, scale_, low_, high_;
  I32x16 shift_;
};

}  // namespace bitpress::neondot
