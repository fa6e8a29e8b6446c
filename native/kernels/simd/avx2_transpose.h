// Eight rows of eight 4-byte elements become columns: one row a lane. For avx2.cc files only.
#pragma once

#include "kernels/simd/avx2.h"

namespace bitpress::avx2 {
namespace {

// Rows a[0..7] of eight floats become columns.
[[gnu::always_inline]] inline void Transpose8x8(F32 a[8]) {
  __m256 t[8], u[8];
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(a[2 * i].v, a[2 * i + 1].v);
    t[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i].v, a[2 * i + 1].v);
  }
  for (int i = 0; i < 2; ++i) {
    u[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    u[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xEE);
    u[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    u[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    a[i].v = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    a[i + 4].v = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}

// The same from memory, row i at x + i * stride. Halves of two rows to a register as they are loaded leave shuffles
// within 128-bit lanes only, half of those above.
[[gnu::always_inline]] inline void LoadTransposed8x8(const float* x, size_t stride, F32 a[8]) {
  for (size_t half = 0; half < 2; ++half) {
    __m256 rows[4];
    for (size_t i = 0; i < 4; ++i) {
      const float* row = x + i * stride + 4 * half;
      rows[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row)), _mm_loadu_ps(row + 4 * stride), 1);
    }
    const __m256 low01 = _mm256_unpacklo_ps(rows[0], rows[1]), high01 = _mm256_unpackhi_ps(rows[0], rows[1]);
    const __m256 low23 = _mm256_unpacklo_ps(rows[2], rows[3]), high23 = _mm256_unpackhi_ps(rows[2], rows[3]);
    a[4 * half].v = _mm256_shuffle_ps(low01, low23, 0x44);
    a[4 * half + 1].v = _mm256_shuffle_ps(low01, low23, 0xEE);
    a[4 * half + 2].v = _mm256_shuffle_ps(high01, high23, 0x44);
    a[4 * half + 3].v = _mm256_shuffle_ps(high01, high23, 0xEE);
  }
}

}  // namespace
}  // namespace bitpress::avx2
