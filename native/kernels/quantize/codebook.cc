#include "kernels/quantize/codebook.h"

#include <cmath>
#include <limits>

namespace bitpress {

float Clip(float x, float clip) {
  if (!(clip > 0.0f)) return x;
  const float above = x > -clip ? x : -clip;
  return above < clip ? above : clip;
}

Codebook MakeCodebook(const QuantizeSpec& spec, const Range& range) {
  Codebook book{};
  book.low = spec.symmetric && !spec.nonnegative ? -127.0f : 0.0f;
  book.high = spec.symmetric ? 127.0f : 255.0f;
  book.shift = spec.symmetric && !spec.nonnegative ? 128 : 0;
  if (spec.is_static) {
    book.scale = spec.scale;
    book.offset = spec.offset;
    book.zero = spec.symmetric || spec.nonnegative ? 0.0f : spec.offset;
    return book;
  }
  if (range.has_nan) {
    book.scale = book.offset = std::numeric_limits<float>::quiet_NaN();
    book.is_constant = true;
    return book;
  }
  // The clipped ends are the ends of the clipped values, as clipping keeps the order. + 0.0f turns -0 into +0: which of
  // the two a minimum returns depends on the order of the search.
  const float lowest = Clip(range.low, spec.clip) + 0.0f, highest = Clip(range.high, spec.clip) + 0.0f;
  if (spec.nonnegative) {
    book.scale = highest / book.high;
  } else if (spec.symmetric) {
    book.scale = std::fmax(-lowest, highest) / 127.0f;
    book.offset = -128.0f * book.scale;
  } else {
    book.scale = (highest - lowest) / 255.0f;
    book.offset = book.zero = lowest;
  }
  if (!(book.scale > 0.0f)) {
    book.scale = 1.0f;
    book.offset = spec.nonnegative ? 0.0f : spec.symmetric ? -128.0f : lowest;
    book.is_constant = true;
    book.constant = static_cast<uint8_t>(book.shift);
  }
  return book;
}

}  // namespace bitpress
