// Three passes over a row that stays in L1: mean, variance, normalized values. x + residual is added again in each,
// which is cheaper than storing it and leaves y free to be x or residual.
#include "kernels/simd/avx2.h"

#include "kernels/layer_norm/layer_norm.h"

namespace bitpress::avx2 {
namespace {

// Element-wise x + residual (x alone where there is none); masked lanes give 0.
template <bool kResidual>
struct Values {
  const float* x;
  const float* residual;
  F32 At(size_t i) const {
    if constexpr (kResidual) return Load(x + i) + Load(residual + i);
    return Load(x + i);
  }
  F32 At(size_t i, I32 mask) const {
    if constexpr (kResidual) return LoadMasked(x + i, mask) + LoadMasked(residual + i, mask);
    return LoadMasked(x + i, mask);
  }
};

// Sum in kLanes order of f over the row; f(value, mask) must be 0 where the mask is.
template <class V, class F>
float Sum(const V& values, size_t cols, F accumulate) {
  F32 low = Zero(), high = Zero();
  size_t i = 0;
  for (; i + kLanes <= cols; i += kLanes) {
    low = accumulate(low, values.At(i));
    high = accumulate(high, values.At(i + kFloats));
  }
  if (i < cols) {
    const size_t rest = cols - i;
    const I32 mask = TailMask(rest);
    low = SelectMask(mask, accumulate(low, values.At(i, mask)), low);
    if (rest > kFloats) {
      const I32 mask_high = TailMask(rest - kFloats);
      high = SelectMask(mask_high, accumulate(high, values.At(i + kFloats, mask_high)), high);
    }
  }
  return SumLanes(low, high);
}

template <bool kResidual>
void NormalizeRow(Values<kResidual> values, size_t cols, const float* gamma, const float* beta, float eps, float* y) {
  const float n = static_cast<float>(cols);
  const F32 mean = F32::Broadcast(Sum(values, cols, [](F32 sum, F32 v) { return sum + v; }) / n);
  const float squares = Sum(values, cols, [mean](F32 sum, F32 v) { return Fma(v - mean, v - mean, sum); });
  const F32 deviation = {_mm256_sqrt_ps(_mm256_set1_ps(squares / n + eps))};
  size_t i = 0;
  for (; i + kFloats <= cols; i += kFloats) {
    Store(y + i, Fma((values.At(i) - mean) / deviation, Load(gamma + i), Load(beta + i)));
  }
  if (i < cols) {
    const I32 mask = TailMask(cols - i);
    const F32 normalized = (values.At(i, mask) - mean) / deviation;
    StoreMasked(y + i, mask, Fma(normalized, LoadMasked(gamma + i, mask), LoadMasked(beta + i, mask)));
  }
}

}  // namespace

void LayerNorm(const float* x, const float* residual, size_t rows, size_t cols, const float* gamma, const float* beta,
               float eps, float* y) {
  for (size_t row = 0; row < rows; ++row) {
    const size_t at = row * cols;
    if (residual) {
      NormalizeRow(Values<true>{x + at, residual + at}, cols, gamma, beta, eps, y + at);
    } else {
      NormalizeRow(Values<false>{x + at, nullptr}, cols, gamma, beta, eps, y + at);
    }
  }
}

}  // namespace bitpress::avx2
