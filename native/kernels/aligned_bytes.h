// Memory of packed weights: on a cache line, so that no register of them lies on two.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "kernels/numerics.h"

namespace bitpress {

struct FreeAligned {
  void operator()(uint8_t* p) const { std::free(p); }
};
using AlignedBytes = std::unique_ptr<uint8_t[], FreeAligned>;

// Throws std::bad_alloc. The content is arbitrary.
inline AlignedBytes AllocateOnCacheLine(size_t bytes) {
  constexpr size_t kCacheLine = 64;
  AlignedBytes memory(static_cast<uint8_t*>(std::aligned_alloc(kCacheLine, RoundUp(bytes, kCacheLine))));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace bitpress
