// Stands in for <immintrin.h> where BITPRESS_EMULATE is on: AVX2 is the CPU's own, AVX-512 is SIMDe's
// (https://github.com/simd-everywhere/simde; Debian's libsimde-dev, 0.7.4), so that kernel sources are tested as they
// are on a CPU without it. What SIMDe lacks is below, by its definition in Intel's manual.
#pragma once

#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

// The VEX forms of AVX-VNNI compute what the EVEX forms do.
#define _mm256_dpbusd_avx_epi32(sum, a, b) simde_mm256_dpbusd_epi32(sum, a, b)
#define _mm256_dpwssd_avx_epi32(sum, a, b) simde_mm256_dpwssd_epi32(sum, a, b)
