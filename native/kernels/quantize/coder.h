// Codes by the formula of codebook.h, written once over the vector type V of AVX2 (simd/avx2.h) and AVX-512
// (simd/avx512.h).
#pragma once

#include "kernels/quantize/codebook.h"

namespace bitpress {

// For any input.
template <class V>
class Coder {
 public:
  Coder(const QuantizeSpec& spec, const Codebook<V>& book)
      : limits_(spec), clip_(spec.clip), book_(book), shift_(decltype(ToInt(book.zero))::Broadcast(limits_.shift)) {}

  // Codes as int32. Max takes `low` for a NaN, so the conversion sees numbers in low..high only.
  auto Codes(V x) const {
    const V quotient = (Clip(x, clip_) - book_.zero) / book_.scale;
    return ToInt(Min(Max(Rounded(quotient), limits_.low), limits_.high)) + shift_;
  }

 private:
  CodeLimits<V> limits_;
  float clip_;
  Codebook<V> book_;
  decltype(ToInt(V{})) shift_;
};

// The same codes for values whose own range the codebook is of, without clip: the quotient lies within the limits (or
// above one by the rounding of the scale, far less than half a code), so nothing is to be clamped.
//
// The division is replaced by four multiplies with the same result [IEEE division: 3.5 cycles a register against 2].
// With y = 1 / b rounded to nearest and y + z = 1 / b to 47 bits, q = fma(a, y, a z) is within half an ulp and
// 2^-22 ulp of a / b; then q + (a - q b) y, the remainder exact by fma, is a / b rounded to nearest (Markstein, IBM J.
// Res. Dev. 34, 1990; Muller et al., Handbook of Floating-Point Arithmetic, 4.7). That wants no underflow on the way:
// AllowedFor() keeps the scale far from it, and where a itself is so small its code is 0 by any quotient.
template <class V>
class RangeCoder {
 public:
  static bool AllowedFor(const QuantizeSpec& spec, const Codebook<V>& book) {
    if (spec.is_static || spec.nonnegative || spec.clip > 0.0f) return false;
    return AllWithin(book.scale, 0x1p-60f, 0x1p60f);
  }

  RangeCoder(const QuantizeSpec& spec, const Codebook<V>& book)
      : zero_(book.zero), scale_(book.scale), shift_(decltype(ToInt(book.zero))::Broadcast(CodeLimits<V>(spec).shift)) {
    const V one = V::Broadcast(1.0f);
    reciprocal_ = one / scale_;
    correction_ = reciprocal_ * NegatedFma(scale_, reciprocal_, one);
  }

  auto Codes(V x) const {
    const V a = x - zero_;
    const V q = Fma(a, reciprocal_, a * correction_);
    const V remainder = NegatedFma(q, scale_, a);
    return ToInt(Fma(remainder, reciprocal_, q)) + shift_;
  }

 private:
  V zero_, scale_, reciprocal_, correction_;
  decltype(ToInt(V{})) shift_;
};

// f(coder), with the faster coder where that is allowed.
template <class V, class F>
[[gnu::always_inline]] inline void WithCoder(const QuantizeSpec& spec, const Codebook<V>& book, F f) {
  if (RangeCoder<V>::AllowedFor(spec, book)) {
    f(RangeCoder<V>(spec, book));
  } else {
    f(Coder<V>(spec, book));
  }
}

}  // namespace bitpress
