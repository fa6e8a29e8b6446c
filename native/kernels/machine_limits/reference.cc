// One chain after another as the compiler finds them: what plain C++ reaches, no limit of the machine.
#include <cmath>

#include "kernels/machine_limits/machine_limits.h"

namespace bitpress::reference {

size_t MultiplyAdds(size_t steps) {
  constexpr size_t kChains = 8;
  float acc[kChains] = {};
  for (size_t i = 0; i < steps; ++i) {
    for (float& a : acc) a = std::fma(a, 0.5f, 0.25f);
  }
  for (float& a : acc) asm volatile("" : : "m"(a));  // used: the loop stays
  return steps * kChains;
}

}  // namespace bitpress::reference
