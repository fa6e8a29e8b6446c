// How many mismatches BiT's rule lets a query's keys have; shared by the fast kernels of every ISA.
//
// In an unnamed namespace and without the standard library: each ISA has its own copy, built with its own flags.
#pragma once

#include "kernels/bit_attention/bit_attention.h"

namespace bitpress {
namespace {

// The query attends to the keys with fewer mismatches than this; 0: to none. mismatches: [tokens], each <= head_size.
inline unsigned SoftmaxLimit(const uint16_t* mismatches, size_t tokens, size_t head_size, const AttendedKeys& keys) {
  // Many keys have the same count: with two histograms in turn, an addition waits less often for the store before it.
  uint32_t counts[kMaxBitHeadSize + 1][2];
  __builtin_memset(counts, 0, (head_size + 1) * sizeof(counts[0]));
  for (size_t j = 0; j < tokens; ++j) ++counts[mismatches[j]][j % 2];
  const auto keys_with = [&](size_t m) { return counts[m][0] + counts[m][1]; };
  size_t fewest = 0;
  while (keys_with(fewest) == 0) ++fewest;  // ends: there is a key
  float total = 0.0f;
  for (size_t m = fewest; m <= head_size; ++m) {
    const uint32_t count = keys_with(m);
    if (count > 0) total = __builtin_fmaf(static_cast<float>(count), keys.decay[m - fewest], total);
  }
  // total >= 1, and a quotient never rises with m: the first that is too small ends the search.
  size_t m = fewest;
  while (m <= head_size && keys.decay[m - fewest] / total >= keys.least) ++m;
  return m == fewest ? 0 : static_cast<unsigned>(m);
}

}  // namespace
}  // namespace bitpress
