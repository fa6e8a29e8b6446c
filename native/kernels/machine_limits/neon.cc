// Sixteen chains: the latency (4 cycles) times the throughput of the multiply-add, 2 a cycle and on wide cores 4.
#include "kernels/simd/neon.h"

#include "kernels/machine_limits/machine_limits.h"

namespace bitpress::neondot {

size_t MultiplyAdds(size_t steps) {
  constexpr size_t kChains = 16;
  F32 acc[kChains];
  for (F32& a : acc) a = F32::Broadcast(0.0f);
  F32 x = F32::Broadcast(0.5f), y = F32::Broadcast(0.25f);
  for (size_t i = 0; i < steps; ++i) {
    asm volatile("" : "+w"(x.v), "+w"(y.v));  // not known to be the same in every step
#pragma GCC unroll 16
    for (size_t c = 0; c < kChains; ++c) acc[c] = Fma(x, y, acc[c]);
  }
  for (F32& a : acc) asm volatile("" : : "w"(a.v));
  return steps * kChains * kFloats;
}

}  // namespace bitpress::neondot
