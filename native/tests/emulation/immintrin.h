// Stands in for <immintrin.h> where BITPRESS_EMULATE is on: AVX2 is the CPU's own, AVX-512 is SIMDe's
// (https://github.com/simd-everywhere/simde; Debian's libsimde-dev, 0.7.4), so that kernel sources are tested as they
// are on a CPU without it. What SIMDe lacks is below, by its definition in Intel's manual.
#pragma once
#pragma GCC system_header  // no warnings of vector types as template arguments

#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

// The VEX forms of AVX-VNNI compute what the EVEX forms do.
#define _mm256_dpbusd_avx_epi32(sum, a, b) simde_mm256_dpbusd_epi32(sum, a, b)
#define _mm256_dpwssd_avx_epi32(sum, a, b) simde_mm256_dpwssd_epi32(sum, a, b)

namespace bitpress::emulation {

// The lanes of a register, to be computed one by one.
template <class Lane, class Register>
struct Lanes {
  static constexpr int kCount = sizeof(Register) / sizeof(Lane);
  Lane of[kCount];
  explicit Lanes(const Register& from) { __builtin_memcpy(of, &from, sizeof(of)); }
  Register Whole() const {
    Register whole;
    __builtin_memcpy(&whole, of, sizeof(of));
    return whole;
  }
};
template <class Register>
using Floats = Lanes<float, Register>;
template <class Register>
using Ints = Lanes<int, Register>;

inline __m512 MaskedLoad(__mmask16 mask, const void* from) {
  Floats<__m512> lanes(_mm512_setzero_ps());
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) __builtin_memcpy(&lanes.of[i], static_cast<const float*>(from) + i, sizeof(float));
  }
  return lanes.Whole();
}
inline void MaskedStore(void* to, __mmask16 mask, __m512 a) {
  const Floats<__m512> lanes(a);
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) __builtin_memcpy(static_cast<float*>(to) + i, &lanes.of[i], sizeof(float));
  }
}
inline void MaskedStoreBytes(void* to, __mmask16 mask, __m128i a) {
  const Lanes<char, __m128i> lanes(a);
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) static_cast<char*>(to)[i] = lanes.of[i];
  }
}
template <class F>
float Reduce(__m512 a, F f) {
  const Floats<__m512> lanes(a);
  float found = lanes.of[0];
  for (float lane : lanes.of) found = f(found, lane);
  return found;
}
inline long long Sum(__m512i a) {
  long long sum = 0;
  for (long long lane : Lanes<long long, __m512i>(a).of) sum += lane;
  return sum;
}
inline __m256 HalfOf(__m512 a, int half) {
  __m256 out;
  __builtin_memcpy(&out, reinterpret_cast<const char*>(&a) + half * sizeof(out), sizeof(out));
  return out;
}
// From the AVX2 instruction of each half.
template <class To, class From, class F>
To ByHalves(From a, F f) {
  char halves[sizeof(From)];
  __builtin_memcpy(halves, &a, sizeof(halves));
  To to;
  for (size_t half = 0; half < 2; ++half) {
    const auto out = f(halves + half * sizeof(From) / 2);
    static_assert(2 * sizeof(out) == sizeof(To), "half of it");
    __builtin_memcpy(reinterpret_cast<char*>(&to) + half * sizeof(out), &out, sizeof(out));
  }
  return to;
}
inline __m256i LoadHalf(const char* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
inline __m512i ToInts(__m512 a) {
  return ByHalves<__m512i>(a, [](const char* half) { return _mm256_cvtps_epi32(_mm256_castsi256_ps(LoadHalf(half))); });
}
inline __m512 ToFloats(__m512i a) {
  return ByHalves<__m512>(a, [](const char* half) { return _mm256_cvtepi32_ps(LoadHalf(half)); });
}
inline __m512i Widened(__m256i a) {
  return ByHalves<__m512i>(a, [](const char* half) {
    return _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(half)));
  });
}
inline __m128i LowBytes(__m512i a) {
  const Ints<__m512i> lanes(a);
  char bytes[16];
  for (int i = 0; i < 16; ++i) bytes[i] = static_cast<char>(lanes.of[i]);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
}
inline __m512i ShiftedRight(__m512i a, int count) {
  return ByHalves<__m512i>(
      a, [=](const char* half) { return _mm256_sra_epi32(LoadHalf(half), _mm_cvtsi32_si128(count)); });
}
inline __mmask32 Greater(__m512i a, __m512i b) {
  const Lanes<short, __m512i> left(a), right(b);
  __mmask32 mask = 0;
  for (int i = 0; i < 32; ++i) mask |= static_cast<__mmask32>(left.of[i] > right.of[i]) << i;
  return mask;
}
inline __m512i ShuffledQuarters(__m512i a, __m512i b, int control) {
  const Lanes<__m128i, __m512i> left(a), right(b);
  Lanes<__m128i, __m512i> out(a);
  for (int i = 0; i < 4; ++i) out.of[i] = (i < 2 ? left : right).of[control >> 2 * i & 3];
  return out.Whole();
}

}  // namespace bitpress::emulation

#define _mm512_maskz_loadu_ps(mask, p) bitpress::emulation::MaskedLoad(mask, p)
#define _mm512_mask_storeu_ps(p, mask, a) bitpress::emulation::MaskedStore(p, mask, a)
#define _mm_mask_storeu_epi8(p, mask, a) bitpress::emulation::MaskedStoreBytes(p, mask, a)
#define _mm512_reduce_min_ps(a) bitpress::emulation::Reduce(a, [](float x, float y) { return y < x ? y : x; })
#define _mm512_reduce_max_ps(a) bitpress::emulation::Reduce(a, [](float x, float y) { return y > x ? y : x; })
#define _mm512_reduce_add_epi64(a) bitpress::emulation::Sum(a)
#define _mm512_mask_cmp_ps_mask(mask, a, b, op) static_cast<__mmask16>((mask) & _mm512_cmp_ps_mask(a, b, op))
#define _mm512_extractf32x8_ps(a, half) bitpress::emulation::HalfOf(a, half)
#define _mm512_cvtps_epi32(a) bitpress::emulation::ToInts(a)
#define _mm512_cvtepi32_ps(a) bitpress::emulation::ToFloats(a)
#define _mm512_cvtepi32_epi8(a) bitpress::emulation::LowBytes(a)
#define _mm512_cvtepi16_epi32(a) bitpress::emulation::Widened(a)
#define _mm512_srai_epi32(a, count) bitpress::emulation::ShiftedRight(a, count)
#define _mm512_cmpgt_epi16_mask(a, b) bitpress::emulation::Greater(a, b)
#define _mm512_shuffle_i64x2(a, b, control) bitpress::emulation::ShuffledQuarters(a, b, control)
#define _mm512_cvtss_f32(a) _mm256_cvtss_f32(bitpress::emulation::HalfOf(a, 0))
