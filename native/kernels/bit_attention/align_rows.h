// The bits of a head, from wherever they lie in rows of all heads; shared by all fast kernels.
//
// In an unnamed namespace: each ISA has its own copy, built with its own flags.
#pragma once

#include "kernels/bit_attention/bit_attention.h"

namespace bitpress {
namespace {

// `tokens` rows of the head's bits, from any bit on, to rows that start with them; `padded` rows in all.
inline void AlignRows(const uint8_t* from, const BitHead& head, size_t padded, size_t row_bytes, uint8_t* to) {
  __builtin_memset(to, 0, padded * row_bytes);
  const size_t begin = head.first_bit / 8, shift = head.first_bit % 8, bytes = BitRowBytes(head.head_size);
  const size_t last = (head.first_bit + head.head_size - 1) / 8;
  const auto end_mask = static_cast<uint8_t>(0xFF >> (bytes * 8 - head.head_size));
  if (shift == 0 && head.head_size == 64) {
    for (size_t t = 0; t < head.tokens; ++t) __builtin_memcpy(to + t * row_bytes, from + t * head.stride + begin, 8);
    return;
  }
  for (size_t t = 0; t < head.tokens; ++t) {
    const uint8_t* row = from + t * head.stride;
    uint8_t* out = to + t * row_bytes;
    for (size_t i = 0; i < bytes; ++i) {
      const unsigned high = begin + i < last ? row[begin + i + 1] : 0u;
      out[i] = static_cast<uint8_t>((row[begin + i] | high << 8) >> shift);
    }
    out[bytes - 1] &= end_mask;
  }
}

}  // namespace
}  // namespace bitpress
