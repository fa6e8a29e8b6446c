// Eight floats in one AVX2 register, and the few helpers that the AVX2 kernels share.
//
// Only avx2.cc files and those of ISAs that contain AVX2 may include this. Everything is in an unnamed namespace, here
// and in the other avx2 headers: no symbol emitted from them can replace, at link time, that of a file built for
// another CPU. For the same reason those files use no inline function of the standard library.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace bitpress::avx2 {
namespace {

constexpr size_t kFloats = 8;  // per register

struct I32 {
  __m256i v;
  static I32 Broadcast(int32_t x) { return {_mm256_set1_epi32(x)}; }
};

// Lanes 0..n-1 all ones, n clamped to 0..8: the mask of a row's tail.
inline I32 TailMask(size_t n) {
  const int count = n < kFloats ? static_cast<int>(n) : static_cast<int>(kFloats);
  return {_mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))};
}

struct F32 {
  static constexpr size_t kCount = kFloats;
  __m256 v;
  static F32 Broadcast(float x) { return {_mm256_set1_ps(x)}; }
  static F32 Load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static F32 FromInts(const void* p) {
    return {_mm256_cvtepi32_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
  }
  // The first n floats, all where n >= 8; what follows is not read, and +0.
  static F32 LoadFirst(const float* p, size_t n) {
    return n >= kFloats ? Load(p) : F32{_mm256_maskload_ps(p, TailMask(n).v)};
  }
};

inline F32 operator+(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline F32 operator-(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline F32 operator*(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline F32 operator/(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
inline F32 Fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline F32 NegatedFma(F32 a, F32 b, F32 c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
inline F32 Sqrt(F32 a) { return {_mm256_sqrt_ps(a.v)}; }
// Both return b where either is NaN or both are zero.
inline F32 Min(F32 a, F32 b) { return {_mm256_min_ps(a.v, b.v)}; }
inline F32 Max(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }
inline F32 SignBit() { return {_mm256_set1_ps(-0.0f)}; }
inline F32 Abs(F32 a) { return {_mm256_andnot_ps(SignBit().v, a.v)}; }
inline F32 CopySign(F32 magnitude, F32 sign) {
  return {_mm256_or_ps(Abs(magnitude).v, _mm256_and_ps(SignBit().v, sign.v))};
}
inline F32 SelectLess(F32 a, F32 b, F32 x, F32 y) {
  return {_mm256_blendv_ps(y.v, x.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))};
}

inline I32 AsInt(F32 a) { return {_mm256_castps_si256(a.v)}; }
inline F32 AsFloat(I32 a) { return {_mm256_castsi256_ps(a.v)}; }
inline I32 operator+(I32 a, I32 b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline I32 operator-(I32 a, I32 b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline I32 Half(I32 a) { return {_mm256_srai_epi32(a.v, 1)}; }
inline I32 ToExponent(I32 a) { return {_mm256_slli_epi32(a.v, 23)}; }

inline float FirstLane(F32 a) { return _mm256_cvtss_f32(a.v); }
inline F32 Zero() { return {_mm256_setzero_ps()}; }
inline F32 Load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void Store(float* p, F32 a) { _mm256_storeu_ps(p, a.v); }
inline I32 LoadInt(const void* p) { return {_mm256_loadu_si256(static_cast<const __m256i*>(p))}; }
inline void StoreInt(void* p, I32 a) { _mm256_storeu_si256(static_cast<__m256i*>(p), a.v); }
inline F32 ToFloat(I32 a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline I32 ToInt(F32 a) { return {_mm256_cvtps_epi32(a.v)}; }
inline F32 Rounded(F32 a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline bool AllWithin(F32 a, float low, float high) {
  const __m256 above = _mm256_cmp_ps(a.v, _mm256_set1_ps(low), _CMP_GE_OQ);
  const __m256 below = _mm256_cmp_ps(a.v, _mm256_set1_ps(high), _CMP_LE_OQ);
  return _mm256_movemask_ps(_mm256_and_ps(above, below)) == 0xFF;
}

// Masked lanes are neither read nor written; a load gives +0 there.
inline F32 LoadMasked(const float* p, I32 mask) { return {_mm256_maskload_ps(p, mask.v)}; }
inline void StoreMasked(float* p, I32 mask, F32 a) { _mm256_maskstore_ps(p, mask.v, a.v); }
inline F32 And(I32 mask, F32 a) { return {_mm256_and_ps(AsFloat(mask).v, a.v)}; }
inline F32 SelectMask(I32 mask, F32 x, F32 y) { return {_mm256_blendv_ps(y.v, x.v, AsFloat(mask).v)}; }
// The first n lanes of a, the others of b.
inline F32 FirstOf(size_t n, F32 a, F32 b) { return SelectMask(TailMask(n), a, b); }

// The first n floats of a, all where n >= 8 (a masked store costs tens of cycles on some CPUs).
inline void StoreFirst(float* p, size_t n, F32 a) {
  if (n >= kFloats) {
    Store(p, a);
  } else if (n > 0) {
    StoreMasked(p, TailMask(n), a);
  }
}
// Four bytes to all lanes.
inline __m256i BroadcastWord(const void* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof(word));
  return _mm256_set1_epi32(word);
}

// "Changes" the two panel registers and two accumulators of an integer tile row, so that the next row's products cannot
// be moved above these additions. Left to itself the compiler computes all products of a step first, runs out of
// registers and spills the accumulators (40 % of the speed). Two products and two additions at a time need
// 12 + 2 + 2 registers: exactly all.
inline void HoldOrder(I32& left, I32& right, I32& acc_left, I32& acc_right) {
  asm volatile("" : "+x"(left.v), "+x"(right.v), "+x"(acc_left.v), "+x"(acc_right.v));
}
// The same where the panel's registers are operands in memory: they are loaded anew for every row, which costs nothing
// next to the multiplies and leaves two registers to the products.
inline void HoldOrderAndReload(I32& acc_left, I32& acc_right) {
  asm volatile("" : "+x"(acc_left.v), "+x"(acc_right.v) : : "memory");
}

// The kLanes = 16 running sums of numerics.h in two registers, added pairwise 8, 4, 2, 1 apart.
inline float SumLanes(F32 lanes0to7, F32 lanes8to15) {
  const F32 by8 = lanes0to7 + lanes8to15;
  const __m128 by4 = _mm_add_ps(_mm256_castps256_ps128(by8.v), _mm256_extractf128_ps(by8.v, 1));
  const __m128 by2 = _mm_add_ps(by4, _mm_movehl_ps(by4, by4));
  return _mm_cvtss_f32(_mm_add_ss(by2, _mm_movehdup_ps(by2)));
}
inline int32_t SumInts(I32 a) {
  __m128i x = _mm_add_epi32(_mm256_castsi256_si128(a.v), _mm256_extracti128_si256(a.v, 1));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xB1)));
}
// Of lanes without NaN, where the order is free.
inline float ReduceMin(F32 a) {
  __m128 x = _mm_min_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_min_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_min_ss(x, _mm_movehdup_ps(x)));
}
inline float ReduceMax(F32 a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

// The rows of a register tile: 12 accumulators of 8 columns, two panel registers and a broadcast fit 16 registers.
constexpr size_t kTileRows = 6;
constexpr size_t kTileColumns = 16;

// A row count that the compiler knows.
template <int N>
struct Rows {
  static constexpr int value = N;
};
// f(first row, Rows<height>) for a height of 1..kMost.
template <int kMost, class F>
[[gnu::always_inline]] inline void WithRows(size_t row, size_t height, F f) {
  if constexpr (kMost > 1) {
    if (height < kMost) return WithRows<kMost - 1>(row, height, f);
  }
  f(row, Rows<kMost>{});
}
// Calls f(first row, Rows<R>) over all rows in as few tiles as possible, R <= kMost, of nearly equal height: tiles of 5
// are as fast as tiles of 6, lower ones are not (16 rows go as 6 + 5 + 5).
template <int kMost = static_cast<int>(kTileRows), class F>
inline void ForTiles(size_t rows, F f) {
  size_t tiles = (rows + kMost - 1) / kMost;
  for (size_t row = 0, height; row < rows; row += height, --tiles) {
    height = (rows - row + tiles - 1) / tiles;
    WithRows<kMost>(row, height, f);
  }
}

}  // namespace
}  // namespace bitpress::avx2
