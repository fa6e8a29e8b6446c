// Ranges of registers, shared by the kernels that quantize. For avx2.cc files only.
#pragma once

#include "kernels/quantize/coder.h"
#include "kernels/simd/avx2.h"

namespace bitpress::avx2 {
namespace {

// The range of what was added, lane by lane.
struct RangeSearch {
  F32 low = F32::Broadcast(__builtin_inff());
  F32 high = F32::Broadcast(-__builtin_inff());
  __m256 nan = _mm256_setzero_ps();

  void Add(F32 x) { Add(x, x); }
  void Add(F32 x, F32 y) {
    nan = _mm256_or_ps(nan, _mm256_cmp_ps(x.v, y.v, _CMP_UNORD_Q));  // where either is NaN
    low = Min(y, Min(x, low));
    high = Max(y, Max(x, high));
  }
  // The first element again in the lanes past the end: it changes no minimum or maximum.
  void AddRow(const float* x, size_t cols) {
    size_t i = 0;
    for (; i + 2 * kFloats <= cols; i += 2 * kFloats) Add(Load(x + i), Load(x + i + kFloats));
    for (; i < cols; i += kFloats) Add(FirstOf(cols - i, F32::LoadFirst(x + i, cols - i), F32::Broadcast(x[0])));
  }
  // A mask of all ones, as float, is a NaN.
  Range<F32> Lanes() const { return {low, high, {nan}}; }
  // One range of all lanes, in every lane.
  Range<F32> Whole() const {
    const float poison = _mm256_movemask_ps(nan) != 0 ? __builtin_nanf("") : 0.0f;
    return {F32::Broadcast(ReduceMin(low)), F32::Broadcast(ReduceMax(high)), F32::Broadcast(poison)};
  }
};

}  // namespace
}  // namespace bitpress::avx2
