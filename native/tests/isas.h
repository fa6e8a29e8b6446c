// Every test of a kernel runs under each ISA that build and CPU have.
#pragma once

#include <algorithm>
#include <string>

#include "kernels/dispatch.h"

namespace bitpress::test {

template <class F>
void ForEveryIsa(F f) {
  const std::string names = AvailableIsas();
  for (size_t begin = 0, end; begin < names.size(); begin = end + 1) {
    end = std::min(names.find(',', begin), names.size());
    f(*KernelsFor(names.substr(begin, end - begin).c_str()));
  }
}

// All but the reference, for tests of which that is the oracle: f(kernels, reference).
template <class F>
void ForEveryFastIsa(F f) {
  const Kernels& reference = *KernelsFor("reference");
  ForEveryIsa([&](const Kernels& kernels) {
    if (&kernels != &reference) f(kernels, reference);
  });
}

}  // namespace bitpress::test
