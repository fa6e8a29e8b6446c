// Softmax of a row of scores, written once over the vector V of kLanes floats: two registers of AVX2, one of AVX-512.
#pragma once

#include "kernels/activation/polynomials.h"
#include "kernels/attention/attention.h"
#include "kernels/simd/avx2_pair.h"

namespace bitpress::avx2 {
namespace {

// -inf past the end of a row, to a multiple of kLanes: exp gives the +0 that the summation order wants there, and the
// maximum, which is returned, ignores it.
template <class V>
float PadAndFindMax(float* x, size_t n) {
  const size_t padded = RoundUp(n, kLanes);
  for (size_t j = n; j < padded; ++j) x[j] = -__builtin_inff();
  V highest = V::Load(x);
  for (size_t j = kLanes; j < padded; j += kLanes) highest = Max(V::Load(x + j), highest);
  return ReduceMax(highest);
}

// In place over n scores; the row has room to a multiple of kLanes and what lies past n is overwritten.
template <class V>
void Softmax(float* x, size_t n) {
  const size_t padded = RoundUp(n, kLanes);
  const V max = V::Broadcast(PadAndFindMax<V>(x, n));
  V sums = V::Broadcast(0.0f);
  size_t j = 0;
  for (; j + 2 * kLanes <= padded; j += 2 * kLanes) {
    const Pair<V> e = Exp(Pair<V>::Load(x + j) - Pair<V>{max, max});
    Store(x + j, e);
    sums = sums + e.first;
    sums = sums + e.second;
  }
  if (j < padded) {
    const V e = Exp(V::Load(x + j) - max);
    Store(x + j, e);
    sums = sums + e;
  }
  const V total = V::Broadcast(SumLanes(sums));
  for (j = 0; j < padded; j += kLanes) Store(x + j, V::Load(x + j) / total);
}

}  // namespace
}  // namespace bitpress::avx2
