// Two vectors in step, and by nesting four: what the shared polynomials are instantiated with where their
// latency would otherwise show.
//
// A polynomial of degree 8 is one chain of eight multiply-adds of four cycles each. The scheduler of a CPU holds about
// four registers' worth of such a formula, which is too little to fill two multiply pipes; here each operation is
// issued for two or four independent registers, one after another.
#pragma once

#include "kernels/simd/avx2.h"

namespace bitpress::avx2 {
namespace {

// [An array of N vectors: the compiler keeps it in memory.]
template <class V>
struct Pair {
  static constexpr size_t kCount = 2 * V::kCount;
  V first, second;
  static Pair Broadcast(float x) { return {V::Broadcast(x), V::Broadcast(x)}; }
  static Pair Load(const float* p) { return {V::Load(p), V::Load(p + V::kCount)}; }
  static Pair FromInts(const void* p) {
    return {V::FromInts(p), V::FromInts(static_cast<const int32_t*>(p) + V::kCount)};
  }
  static Pair LoadFirst(const float* p, size_t n) {
    return {V::LoadFirst(p, n), V::LoadFirst(p + V::kCount, n > V::kCount ? n - V::kCount : 0)};
  }
};

#define BITPRESS_PAIR_UNARY(name)                       \
  template <class V>                                    \
  inline auto name(Pair<V> a) {                         \
    using Result = decltype(name(a.first));             \
    return Pair<Result>{name(a.first), name(a.second)}; \
  }
#define BITPRESS_PAIR_BINARY(name)                             \
  template <class V>                                           \
  inline Pair<V> name(Pair<V> a, Pair<V> b) {                  \
    return {name(a.first, b.first), name(a.second, b.second)}; \
  }

BITPRESS_PAIR_BINARY(operator+)
BITPRESS_PAIR_BINARY(operator-)
BITPRESS_PAIR_BINARY(operator*)
BITPRESS_PAIR_BINARY(operator/)
BITPRESS_PAIR_BINARY(Min)
BITPRESS_PAIR_BINARY(Max)
BITPRESS_PAIR_BINARY(CopySign)
BITPRESS_PAIR_UNARY(Abs)
BITPRESS_PAIR_UNARY(Sqrt)
BITPRESS_PAIR_UNARY(AsInt)
BITPRESS_PAIR_UNARY(AsFloat)
BITPRESS_PAIR_UNARY(ToInt)
BITPRESS_PAIR_UNARY(ToFloat)
BITPRESS_PAIR_UNARY(Rounded)
BITPRESS_PAIR_UNARY(Half)
BITPRESS_PAIR_UNARY(ToExponent)

#undef BITPRESS_PAIR_BINARY
#undef BITPRESS_PAIR_UNARY

template <class V>
inline Pair<V> Fma(Pair<V> a, Pair<V> b, Pair<V> c) {
  return {Fma(a.first, b.first, c.first), Fma(a.second, b.second, c.second)};
}
template <class V>
inline Pair<V> SelectLess(Pair<V> a, Pair<V> b, Pair<V> x, Pair<V> y) {
  return {SelectLess(a.first, b.first, x.first, y.first), SelectLess(a.second, b.second, x.second, y.second)};
}

template <class V>
inline void Store(float* p, Pair<V> a) {
  Store(p, a.first);
  Store(p + V::kCount, a.second);
}
template <class V>
inline void StoreFirst(float* p, size_t n, Pair<V> a) {
  StoreFirst(p, n, a.first);
  StoreFirst(p + V::kCount, n > V::kCount ? n - V::kCount : 0, a.second);
}
template <class V>
inline Pair<V> FirstOf(size_t n, Pair<V> a, Pair<V> b) {
  return {FirstOf(n, a.first, b.first), FirstOf(n > V::kCount ? n - V::kCount : 0, a.second, b.second)};
}

using F32x2 = Pair<F32>;
using F32x4 = Pair<F32x2>;

inline float SumLanes(F32x2 a) { return SumLanes(a.first, a.second); }
inline float ReduceMax(F32x2 a) { return ReduceMax(Max(a.first, a.second)); }
inline int32_t SumInts(Pair<I32> a) { return SumInts(a.first + a.second); }

}  // namespace
}  // namespace bitpress::avx2
