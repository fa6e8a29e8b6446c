// The ones of a row of bits; shared by the fast kernels of x86.
//
// In an unnamed namespace: each ISA has its own copy, built with its own flags.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitpress {
namespace {

inline size_t CountOnes(const uint8_t* row, size_t bytes) {
  size_t ones = 0, i = 0;
  for (; i + 8 <= bytes; i += 8) {
    uint64_t word;
    __builtin_memcpy(&word, row + i, 8);
    ones += static_cast<size_t>(__builtin_popcountll(word));
  }
  for (; i < bytes; ++i) ones += static_cast<size_t>(__builtin_popcount(row[i]));
  return ones;
}

}  // namespace
}  // namespace bitpress
