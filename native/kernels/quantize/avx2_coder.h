// Ranges and codes of registers, shared by the kernels that quantize. For avx2.cc files only.
#pragma once

#include "kernels/quantize/codebook.h"
#include "kernels/simd/avx2.h"

namespace bitpress::avx2 {
namespace {

// The range of what was added, lane by lane.
struct RangeSearch {
  F32 low = F32::Broadcast(__builtin_inff());
  F32 high = F32::Broadcast(-__builtin_inff());
  __m256 nan = _mm256_setzero_ps();

  void Add(F32 x) { Add(x, x); }
  void Add(F32 x, F32 y) {
    nan = _mm256_or_ps(nan, _mm256_cmp_ps(x.v, y.v, _CMP_UNORD_Q));  // where either is NaN
    low = Min(y, Min(x, low));
    high = Max(y, Max(x, high));
  }
  // A mask of all ones, as float, is a NaN.
  Range<F32> Lanes() const { return {low, high, {nan}}; }
  // One range of all lanes, in every lane.
  Range<F32> Whole() const {
    const float poison = _mm256_movemask_ps(nan) != 0 ? __builtin_nanf("") : 0.0f;
    return {F32::Broadcast(ReduceMin(low)), F32::Broadcast(ReduceMax(high)), F32::Broadcast(poison)};
  }
};

// Codes by the formula of codebook.h, for any input.
class Coder {
 public:
  Coder(const QuantizeSpec& spec, const Codebook<F32>& book)
      : limits_(spec), clip_(spec.clip), book_(book), shift_{_mm256_set1_epi32(limits_.shift)} {}

  // Eight codes as int32. Max takes `low` for a NaN, so the conversion sees numbers in low..high only.
  I32 Codes(F32 x) const {
    const F32 quotient = (Clip(x, clip_) - book_.zero) / book_.scale;
    const F32 rounded = {_mm256_round_ps(quotient.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
    return I32{_mm256_cvtps_epi32(Min(Max(rounded, limits_.low), limits_.high).v)} + shift_;
  }

 private:
  CodeLimits<F32> limits_;
  float clip_;
  Codebook<F32> book_;
  I32 shift_;
};

// The same codes for values whose own range the codebook is of, without clip: the quotient lies within the limits (or
// above one by the rounding of the scale, far less than half a code), so nothing is to be clamped.
//
// The division is replaced by four multiplies with the same result [IEEE division: 3.5 cycles a register against 2].
// With y = 1 / b rounded to nearest and y + z = 1 / b to 47 bits, q = fma(a, y, a z) is within half an ulp and
// 2^-22 ulp of a / b; then q + (a - q b) y, the remainder exact by fma, is a / b rounded to nearest (Markstein, IBM J.
// Res. Dev. 34, 1990; Muller et al., Handbook of Floating-Point Arithmetic, 4.7). That wants no underflow on the way:
// AllowedFor() keeps the scale far from it, and where a itself is so small its code is 0 by any quotient.
class RangeCoder {
 public:
  static bool AllowedFor(const QuantizeSpec& spec, const Codebook<F32>& book) {
    if (spec.is_static || spec.nonnegative || spec.clip > 0.0f) return false;
    const __m256 above = _mm256_cmp_ps(book.scale.v, _mm256_set1_ps(0x1p-60f), _CMP_GE_OQ);
    const __m256 below = _mm256_cmp_ps(book.scale.v, _mm256_set1_ps(0x1p60f), _CMP_LE_OQ);
    return _mm256_movemask_ps(_mm256_and_ps(above, below)) == 0xFF;
  }

  RangeCoder(const QuantizeSpec& spec, const Codebook<F32>& book)
      : zero_(book.zero), scale_(book.scale), shift_{_mm256_set1_epi32(CodeLimits<F32>(spec).shift)} {
    const F32 one = F32::Broadcast(1.0f);
    reciprocal_ = one / scale_;
    correction_ = reciprocal_ * F32{_mm256_fnmadd_ps(scale_.v, reciprocal_.v, one.v)};
  }

  I32 Codes(F32 x) const {
    const F32 a = x - zero_;
    const F32 q = Fma(a, reciprocal_, a * correction_);
    const F32 remainder = {_mm256_fnmadd_ps(q.v, scale_.v, a.v)};
    return I32{_mm256_cvtps_epi32(Fma(remainder, reciprocal_, q).v)} + shift_;
  }

 private:
  F32 zero_, scale_, reciprocal_, correction_;
  I32 shift_;
};

// f(coder), with the faster coder where that is allowed.
template <class F>
[[gnu::always_inline]] inline void WithCoder(const QuantizeSpec& spec, const Codebook<F32>& book, F f) {
  if (RangeCoder::AllowedFor(spec, book)) {
    f(RangeCoder(spec, book));
  } else {
    f(Coder(spec, book));
  }
}

}  // namespace
}  // namespace bitpress::avx2
