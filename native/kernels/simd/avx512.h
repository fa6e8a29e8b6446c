// Sixteen floats in one AVX-512 register: the operations of avx2.h, with the same meaning.
//
// Only avx512vnni.cc and avx512vpopcntdq.cc files may include this; everything is in an unnamed namespace, for the
// reason given there.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace bitpress::avx512vnni {
namespace {

struct I32 {
  __m512i v;
  static I32 Broadcast(int32_t x) { return {_mm512_set1_epi32(x)}; }
};

// The first n lanes, all where n >= 16.
inline __mmask16 FirstLanes(size_t n) { return static_cast<__mmask16>(n < 16 ? (1u << n) - 1 : 0xFFFFu); }

struct F32 {
  static constexpr size_t kCount = 16;
  __m512 v;
  static F32 Broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static F32 Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static F32 FromInts(const void* p) { return {_mm512_cvtepi32_ps(_mm512_loadu_si512(p))}; }
  static F32 LoadFirst(const float* p, size_t n) { return {_mm512_maskz_loadu_ps(FirstLanes(n), p)}; }
};

inline F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32 Fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F32 NegatedFma(F32 a, F32 b, F32 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
inline F32 Sqrt(F32 a) { return {_mm512_sqrt_ps(a.v)}; }
// Both return b where either is NaN or both are zero.
inline F32 Min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32 Max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32 SignBit() { return F32::Broadcast(-0.0f); }
inline F32 Abs(F32 a) { return {_mm512_andnot_ps(SignBit().v, a.v)}; }
inline F32 CopySign(F32 magnitude, F32 sign) {
  return {_mm512_or_ps(Abs(magnitude).v, _mm512_and_ps(SignBit().v, sign.v))};
}
inline F32 SelectLess(F32 a, F32 b, F32 x, F32 y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}

inline I32 AsInt(F32 a) { return {_mm512_castps_si512(a.v)}; }
inline F32 AsFloat(I32 a) { return {_mm512_castsi512_ps(a.v)}; }
inline I32 operator+(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I32 operator-(I32 a, I32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline I32 Half(I32 a) { return {_mm512_srai_epi32(a.v, 1)}; }
inline I32 ToExponent(I32 a) { return {_mm512_slli_epi32(a.v, 23)}; }
inline F32 ToFloat(I32 a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline I32 ToInt(F32 a) { return {_mm512_cvtps_epi32(a.v)}; }
inline F32 Rounded(F32 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

inline float FirstLane(F32 a) { return _mm512_cvtss_f32(a.v); }
inline void Store(float* p, F32 a) { _mm512_storeu_ps(p, a.v); }
inline void StoreFirst(float* p, size_t n, F32 a) { _mm512_mask_storeu_ps(p, FirstLanes(n), a.v); }
// The first n lanes of a, the others of b.
inline F32 FirstOf(size_t n, F32 a, F32 b) { return {_mm512_mask_blend_ps(FirstLanes(n), b.v, a.v)}; }
inline bool AllWithin(F32 a, float low, float high) {
  const __mmask16 above = _mm512_cmp_ps_mask(a.v, _mm512_set1_ps(low), _CMP_GE_OQ);
  return _mm512_mask_cmp_ps_mask(above, a.v, _mm512_set1_ps(high), _CMP_LE_OQ) == 0xFFFF;
}

// The kLanes = 16 running sums of numerics.h, added pairwise 8, 4, 2, 1 apart.
inline float SumLanes(F32 a) {
  const __m256 by8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 by4 = _mm_add_ps(_mm256_castps256_ps128(by8), _mm256_extractf128_ps(by8, 1));
  const __m128 by2 = _mm_add_ps(by4, _mm_movehl_ps(by4, by4));
  return _mm_cvtss_f32(_mm_add_ss(by2, _mm_movehdup_ps(by2)));
}
// Of lanes without NaN, where the order is free.
inline float ReduceMin(F32 a) { return _mm512_reduce_min_ps(a.v); }
inline float ReduceMax(F32 a) { return _mm512_reduce_max_ps(a.v); }
// Wraps around, as codes of NaN may make it; `_mm512_reduce_add_epi32` ends in additions of int.
inline int32_t SumInts(I32 a) {
  const __m256i by8 = _mm256_add_epi32(_mm512_castsi512_si256(a.v), _mm512_extracti64x4_epi64(a.v, 1));
  const __m128i by4 = _mm_add_epi32(_mm256_castsi256_si128(by8), _mm256_extracti128_si256(by8, 1));
  const __m128i by2 = _mm_add_epi32(by4, _mm_shuffle_epi32(by4, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(by2, _mm_shuffle_epi32(by2, 0xB1)));
}

}  // namespace
}  // namespace bitpress::avx512vnni
