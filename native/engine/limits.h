// Measures what one thread of this machine can do.
#pragma once

#include "kernels/dispatch.h"

namespace bitpress {

struct Limits {
  double multiply_adds;  // fp32, a second
  double copied_bytes;   // a second, from memory to memory, each byte counted once
};

// Takes some tens of milliseconds. Throws std::bad_alloc.
Limits MeasureLimits(const Kernels& kernels);

}  // namespace bitpress
