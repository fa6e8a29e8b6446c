// From a range to the numbers that the coding loop needs, written once over the vector type V (simd/scalar.h,
// avx2.h, neon.h), so that every ISA computes the same bits: one range, or eight at a time, one a lane.
#pragma once

#include "kernels/numerics.h"

namespace bitpress {

// The smallest and largest value, before any clipping, and 0, or NaN where a NaN was among the values.
template <class V>
struct Range {
  V low, high, nan;
};

// code = clamp(round_half_even((x - zero) / scale), lowest code, highest code) + shift, value = scale * code + offset.
template <class V>
struct Codebook {
  V scale, offset, zero;
};

// The limits of codes before the shift. [A plain function would be one symbol of all ISAs; see
// native/tests/symbols.cmake.]
template <class V>
struct CodeLimits {
  int shift;
  float highest;
  V low, high;
  explicit CodeLimits(const QuantizeSpec& spec)
      : shift(spec.symmetric && !spec.nonnegative ? 1 << (spec.bits - 1) : 0),
        highest(static_cast<float>((1 << (spec.symmetric ? spec.bits - 1 : spec.bits)) - 1)),
        low(V::Broadcast(shift > 0 ? -highest : 0.0f)),
        high(V::Broadcast(highest)) {}
};

// x clamped to [-clip, clip]; x itself where clip is 0.
template <class V>
inline V Clip(V x, float clip) {
  return clip > 0.0f ? Min(Max(x, V::Broadcast(-clip)), V::Broadcast(clip)) : x;
}

// range is not looked at where spec.is_static.
template <class V>
[[gnu::always_inline]] inline Codebook<V> MakeCodebook(const QuantizeSpec& spec, const Range<V>& range) {
  const V zero = V::Broadcast(0.0f);
  const CodeLimits<V> limits(spec);
  if (spec.is_static) {
    return {V::Broadcast(spec.scale), V::Broadcast(spec.offset),
            spec.symmetric || spec.nonnegative ? zero : V::Broadcast(spec.offset)};
  }
  // The clipped ends are the ends of the clipped values, as clipping keeps the order. + 0 turns -0 into +0: which of
  // the two a minimum returns depends on the order of the search.
  const V lowest = Clip(range.low, spec.clip) + zero, highest = Clip(range.high, spec.clip) + zero;
  Codebook<V> book = {zero, zero, zero};
  if (spec.nonnegative) {
    book.scale = highest / limits.high;
  } else if (spec.symmetric) {
    book.scale = Max(zero - lowest, highest) / limits.high;
  } else {
    book.scale = (highest - lowest) / limits.high;
    book.offset = book.zero = lowest;
  }
  // A range of zero width, or so narrow that the scale underflows: every quotient by 1 rounds to 0.
  book.scale = SelectLess(zero, book.scale, book.scale, V::Broadcast(1.0f));
  if (limits.shift > 0) book.offset = V::Broadcast(static_cast<float>(-limits.shift)) * book.scale;
  book.scale = book.scale + range.nan;
  book.offset = book.offset + range.nan;
  return book;
}

}  // namespace bitpress
