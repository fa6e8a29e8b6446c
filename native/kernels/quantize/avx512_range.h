// Ranges of registers, as in avx2_range.h. For avx512vnni.cc files only.
#pragma once

#include "kernels/quantize/coder.h"
#include "kernels/simd/avx512.h"

namespace bitpress::avx512vnni {
namespace {

struct RangeSearch {
  F32 low = F32::Broadcast(__builtin_inff());
  F32 high = F32::Broadcast(-__builtin_inff());
  __mmask16 nan = 0;

  void Add(F32 x) {
    nan |= _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q);
    low = Min(x, low);
    high = Max(x, high);
  }
  // The first element again in the lanes past the end: it changes no minimum or maximum.
  void AddRow(const float* x, size_t cols) {
    size_t i = 0;
    for (; i + F32::kCount <= cols; i += F32::kCount) Add(F32::Load(x + i));
    if (i < cols) Add(FirstOf(cols - i, F32::LoadFirst(x + i, cols - i), F32::Broadcast(x[0])));
  }
  // One range of all lanes, in every lane.
  Range<F32> Whole() const {
    const float poison = nan != 0 ? __builtin_nanf("") : 0.0f;
    return {F32::Broadcast(ReduceMin(low)), F32::Broadcast(ReduceMax(high)), F32::Broadcast(poison)};
  }
};

}  // namespace
}  // namespace bitpress::avx512vnni
