// Four floats in one Advanced SIMD register, sixteen in four of them, and the few helpers that the NEON kernels share.
//
// Only neon.cc files may include this. Everything is in namespace bitpress::neondot, so no symbol emitted from here can
// replace a baseline one at link time; for the same reason those files use no inline function of the standard library.
//
// The kernels work on sixteen floats at a time: one vector is the kLanes running sums of numerics.h, the four chains of
// a polynomial hide each other's latency, and of 32 registers two or three such vectors leave room for constants.
#pragma once

#include <arm_neon.h>

#include "kernels/numerics.h"

namespace bitpress::neondot {

constexpr size_t kFloats = 4;  // per register

struct I32 {
  int32x4_t v;
};

struct F32 {
  float32x4_t v;
  static F32 Broadcast(float x) { return {vdupq_n_f32(x)}; }
};

inline F32 operator+(F32 a, F32 b) { return {vaddq_f32(a.v, b.v)}; }
inline F32 operator-(F32 a, F32 b) { return {vsubq_f32(a.v, b.v)}; }
inline F32 operator*(F32 a, F32 b) { return {vmulq_f32(a.v, b.v)}; }
inline F32 operator/(F32 a, F32 b) { return {vdivq_f32(a.v, b.v)}; }
inline F32 Fma(F32 a, F32 b, F32 c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
// Both return b where either is NaN or both are zero. [`fmin` and `fmax`: NaN where either is, -0 below +0.]
inline F32 Min(F32 a, F32 b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
inline F32 Max(F32 a, F32 b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
inline F32 Abs(F32 a) { return {vabsq_f32(a.v)}; }
inline F32 CopySign(F32 magnitude, F32 sign) { return {vbslq_f32(vdupq_n_u32(0x80000000u), sign.v, magnitude.v)}; }
inline F32 SelectLess(F32 a, F32 b, F32 x, F32 y) { return {vbslq_f32(vcltq_f32(a.v, b.v), x.v, y.v)}; }
inline F32 Sqrt(F32 a) { return {vsqrtq_f32(a.v)}; }

inline I32 AsInt(F32 a) { return {vreinterpretq_s32_f32(a.v)}; }
inline F32 AsFloat(I32 a) { return {vreinterpretq_f32_s32(a.v)}; }
inline I32 operator+(I32 a, I32 b) { return {vaddq_s32(a.v, b.v)}; }
inline I32 operator-(I32 a, I32 b) { return {vsubq_s32(a.v, b.v)}; }
inline I32 Half(I32 a) { return {vshrq_n_s32(a.v, 1)}; }
inline I32 ToExponent(I32 a) { return {vshlq_n_s32(a.v, 23)}; }
inline F32 ToFloat(I32 a) { return {vcvtq_f32_s32(a.v)}; }
// Half to even; NaN gives 0, what int32 cannot hold its nearest end.
inline I32 RoundToInt(F32 a) { return {vcvtnq_s32_f32(a.v)}; }
// All ones where a is.
inline F32 SelectMask(I32 mask, F32 x, F32 y) { return {vbslq_f32(vreinterpretq_u32_s32(mask.v), x.v, y.v)}; }
inline float FirstLane(F32 a) { return vgetq_lane_f32(a.v, 0); }

// Four registers in step: what the shared polynomials are instantiated with, and the unit of all rows.
template <class V>
struct Four {
  V a, b, c, d;
  static Four Broadcast(float x) { return {V::Broadcast(x), V::Broadcast(x), V::Broadcast(x), V::Broadcast(x)}; }
};

#define BITPRESS_FOUR_UNARY(name)                                    \
  template <class V>                                                 \
  inline auto name(Four<V> x) {                                      \
    using Result = decltype(name(x.a));                              \
    return Four<Result>{name(x.a), name(x.b), name(x.c), name(x.d)}; \
  }
#define BITPRESS_FOUR_BINARY(name)                                           \
  template <class V>                                                         \
  inline Four<V> name(Four<V> x, Four<V> y) {                                \
    return {name(x.a, y.a), name(x.b, y.b), name(x.c, y.c), name(x.d, y.d)}; \
  }

BITPRESS_FOUR_BINARY(operator+)
BITPRESS_FOUR_BINARY(operator-)
BITPRESS_FOUR_BINARY(operator*)
BITPRESS_FOUR_BINARY(operator/)
BITPRESS_FOUR_BINARY(Min)
BITPRESS_FOUR_BINARY(Max)
BITPRESS_FOUR_BINARY(CopySign)
BITPRESS_FOUR_UNARY(Abs)
BITPRESS_FOUR_UNARY(AsInt)
BITPRESS_FOUR_UNARY(AsFloat)
BITPRESS_FOUR_UNARY(Half)
BITPRESS_FOUR_UNARY(ToExponent)
BITPRESS_FOUR_UNARY(ToFloat)
BITPRESS_FOUR_UNARY(RoundToInt)

#undef BITPRESS_FOUR_BINARY
#undef BITPRESS_FOUR_UNARY

template <class V>
inline Four<V> Fma(Four<V> x, Four<V> y, Four<V> z) {
  return {Fma(x.a, y.a, z.a), Fma(x.b, y.b, z.b), Fma(x.c, y.c, z.c), Fma(x.d, y.d, z.d)};
}
template <class V>
inline Four<V> SelectLess(Four<V> x, Four<V> y, Four<V> yes, Four<V> no) {
  return {SelectLess(x.a, y.a, yes.a, no.a), SelectLess(x.b, y.b, yes.b, no.b), SelectLess(x.c, y.c, yes.c, no.c),
          SelectLess(x.d, y.d, yes.d, no.d)};
}
template <class V, class M>
inline Four<V> SelectMask(Four<M> mask, Four<V> x, Four<V> y) {
  return {SelectMask(mask.a, x.a, y.a), SelectMask(mask.b, x.b, y.b), SelectMask(mask.c, x.c, y.c),
          SelectMask(mask.d, x.d, y.d)};
}

using F32x16 = Four<F32>;
using I32x16 = Four<I32>;
static_assert(kLanes == 4 * kFloats, "one F32x16 is the running sums of a row");

inline F32x16 Zero() { return F32x16::Broadcast(0.0f); }
inline I32x16 ZeroInts() { return AsInt(Zero()); }
inline F32x16 Load(const float* p) {
  return {{vld1q_f32(p)}, {vld1q_f32(p + 4)}, {vld1q_f32(p + 8)}, {vld1q_f32(p + 12)}};
}
inline void Store(float* p, F32x16 x) {
  vst1q_f32(p, x.a.v);
  vst1q_f32(p + 4, x.b.v);
  vst1q_f32(p + 8, x.c.v);
  vst1q_f32(p + 12, x.d.v);
}
inline I32x16 LoadInts(const int32_t* p) {
  return {{vld1q_s32(p)}, {vld1q_s32(p + 4)}, {vld1q_s32(p + 8)}, {vld1q_s32(p + 12)}};
}
inline void StoreInts(int32_t* p, I32x16 x) {
  vst1q_s32(p, x.a.v);
  vst1q_s32(p + 4, x.b.v);
  vst1q_s32(p + 8, x.c.v);
  vst1q_s32(p + 12, x.d.v);
}

// The first n elements, all where n >= 16; the others are neither read nor written, and loaded as +0. Rows have one
// tail, so a detour through memory costs little.
inline F32x16 LoadFirst(const float* p, size_t n) {
  if (n >= kLanes) return Load(p);
  float first[kLanes] = {};
  __builtin_memcpy(first, p, n * sizeof(float));
  return Load(first);
}
inline void StoreFirst(float* p, size_t n, F32x16 x) {
  if (n >= kLanes) return Store(p, x);
  float first[kLanes];
  Store(first, x);
  __builtin_memcpy(p, first, n * sizeof(float));
}
inline uint8x16_t LoadFirstBytes(const uint8_t* p, size_t n) {
  if (n >= 16) return vld1q_u8(p);
  uint8_t first[16] = {};
  __builtin_memcpy(first, p, n);
  return vld1q_u8(first);
}
// Lanes 0..n-1 all ones.
inline I32x16 TailMask(size_t n) {
  const int32x4_t count = vdupq_n_s32(n < kLanes ? static_cast<int>(n) : static_cast<int>(kLanes));
  const int32x4_t lane = {0, 1, 2, 3};
  const auto mask = [&](int first) {
    return I32{vreinterpretq_s32_u32(vcgtq_s32(count, vaddq_s32(lane, vdupq_n_s32(first))))};
  };
  return {mask(0), mask(4), mask(8), mask(12)};
}

// f(index, count) over n elements, count = 16 but for the last.
template <class F>
inline void ForSixteens(size_t n, F f) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, kLanes);
  if (i < n) f(i, n - i);
}

// The running sums of numerics.h, added pairwise 8, 4, 2, 1 apart.
inline float SumLanes(F32x16 x) {
  const F32 by4 = (x.a + x.c) + (x.b + x.d);
  return vpadds_f32(vadd_f32(vget_low_f32(by4.v), vget_high_f32(by4.v)));
}
inline int32_t SumInts(I32x16 x) { return vaddvq_s32(((x.a + x.b) + (x.c + x.d)).v); }
// Of lanes without NaN, where the order is free.
inline float ReduceMin(F32x16 x) { return vminvq_f32(Min(Min(x.a, x.b), Min(x.c, x.d)).v); }
inline float ReduceMax(F32x16 x) { return vmaxvq_f32(Max(Max(x.a, x.b), Max(x.c, x.d)).v); }

// Sixteen bytes, widened; sixteen int32 in 0..255, narrowed.
inline I32x16 Widen(int16x8_t low, int16x8_t high) {
  return {
      {vmovl_s16(vget_low_s16(low))}, {vmovl_high_s16(low)}, {vmovl_s16(vget_low_s16(high))}, {vmovl_high_s16(high)}};
}
inline I32x16 Widen(int8x16_t x) { return Widen(vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x)); }
inline I32x16 Widen(uint8x16_t x) {
  return Widen(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x))), vreinterpretq_s16_u16(vmovl_high_u8(x)));
}
inline uint8x16_t Narrow(I32x16 x) {
  const uint16x8_t low = vcombine_u16(vqmovun_s32(x.a.v), vqmovun_s32(x.b.v));
  const uint16x8_t high = vcombine_u16(vqmovun_s32(x.c.v), vqmovun_s32(x.d.v));
  return vcombine_u8(vmovn_u16(low), vmovn_u16(high));
}

// Rows a, b, c, d of four 4-byte elements become columns.
inline Four<I32> Transpose4x4(Four<I32> x) {
  const auto pairs = [](int32x4_t x) { return vreinterpretq_s64_s32(x); };
  const int64x2_t ab_even = pairs(vtrn1q_s32(x.a.v, x.b.v)), ab_odd = pairs(vtrn2q_s32(x.a.v, x.b.v));
  const int64x2_t cd_even = pairs(vtrn1q_s32(x.c.v, x.d.v)), cd_odd = pairs(vtrn2q_s32(x.c.v, x.d.v));
  return {{vreinterpretq_s32_s64(vtrn1q_s64(ab_even, cd_even))},
          {vreinterpretq_s32_s64(vtrn1q_s64(ab_odd, cd_odd))},
          {vreinterpretq_s32_s64(vtrn2q_s64(ab_even, cd_even))},
          {vreinterpretq_s32_s64(vtrn2q_s64(ab_odd, cd_odd))}};
}

}  // namespace bitpress::neondot
