// Weights on their way to L2; shared by the linear layers of x86.
//
// In an unnamed namespace: each ISA has its own copy, built with its own flags.
#pragma once

#include <xmmintrin.h>

#include "kernels/numerics.h"

namespace bitpress {
namespace {

// Lines of the weights that come next, fetched into L2 a few at a time while the present ones are multiplied. The
// hardware follows a panel once it is being read; by then a tile of rows has waited for the memory.
class Fetcher {
 public:
  Fetcher(const uint8_t* begin, size_t bytes, size_t turns) : at_(begin), end_(begin + bytes) {
    share_ = RoundUp(bytes / turns + 1, kLine);
  }
  void TakeTurn() {
    for (const uint8_t* stop = at_ + share_; at_ < stop && at_ < end_; at_ += kLine) {
      _mm_prefetch(reinterpret_cast<const char*>(at_), _MM_HINT_T1);
    }
  }

 private:
  static constexpr size_t kLine = 64;
  const uint8_t *at_, *end_;
  size_t share_;
};

}  // namespace
}  // namespace bitpress
