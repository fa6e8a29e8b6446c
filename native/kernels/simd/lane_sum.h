// The summation order of numerics.h, for the reference kernels.
#pragma once

#include <cmath>

#include "kernels/numerics.h"

namespace bitpress::reference {

class LaneSum {
 public:
  void Add(size_t i, float x) { lanes_[i % kLanes] += x; }
  void AddSquare(size_t i, float x) { lanes_[i % kLanes] = std::fma(x, x, lanes_[i % kLanes]); }
  float Total() {
    for (size_t width = kLanes / 2; width > 0; width /= 2) {
      for (size_t j = 0; j < width; ++j) lanes_[j] += lanes_[j + width];
    }
    return lanes_[0];
  }

 private:
  float lanes_[kLanes] = {};
};

}  // namespace bitpress::reference
