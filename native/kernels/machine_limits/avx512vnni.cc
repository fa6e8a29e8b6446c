// As in AVX2: twelve chains, here of 16 floats.
#include <immintrin.h>

#include "kernels/machine_limits/machine_limits.h"

namespace bitpress::avx512vnni {

size_t MultiplyAdds(size_t steps) {
  constexpr size_t kChains = 12;
  __m512 acc[kChains];
  // Different starts: chains that are known to be the same would be computed once.
#pragma GCC unroll 12
  for (size_t c = 0; c < kChains; ++c) acc[c] = _mm512_set1_ps(static_cast<float>(c));
  const __m512 x = _mm512_set1_ps(0.5f), y = _mm512_set1_ps(0.25f);
  for (size_t i = 0; i < steps; ++i) {
#pragma GCC unroll 12
    for (size_t c = 0; c < kChains; ++c) acc[c] = _mm512_fmadd_ps(acc[c], x, y);
  }
  for (size_t c = 0; c < kChains; ++c) {
    float lanes[16];
    _mm512_storeu_ps(lanes, acc[c]);
    asm volatile("" : : "m"(lanes));  // used: the loop stays
  }
  return steps * kChains * 16;
}

}  // namespace bitpress::avx512vnni
