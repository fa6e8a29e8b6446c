// Twelve chains: the latency (4 or 5 cycles) times the throughput (2 a cycle) of the multiply-add, and more.
#include "kernels/simd/avx2.h"

#include "kernels/machine_limits/machine_limits.h"

namespace bitpress::avx2 {

size_t MultiplyAdds(size_t steps) {
  constexpr size_t kChains = 12;
  F32 acc[kChains];
  for (F32& a : acc) a = Zero();
  F32 x = F32::Broadcast(0.5f), y = F32::Broadcast(0.25f);
  for (size_t i = 0; i < steps; ++i) {
    asm volatile("" : "+x"(x.v), "+x"(y.v));  // not known to be the same in every step
#pragma GCC unroll 12
    for (size_t c = 0; c < kChains; ++c) acc[c] = Fma(acc[c], x, y);
  }
  for (F32& a : acc) asm volatile("" : : "x"(a.v));
  return steps * kChains * kFloats;
}

}  // namespace bitpress::avx2
