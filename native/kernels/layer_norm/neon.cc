// Three passes over a row that stays in L1: mean, variance, normalized values. x + residual is added again in each,
// which leaves y free to be x or residual.
#include "kernels/simd/neon.h"

#include "kernels/layer_norm/layer_norm.h"

namespace bitpress::neondot {
namespace {

// Sum in kLanes order of accumulate(sum, value) over the row; lanes past its end keep their sums.
template <class V, class F>
float Sum(size_t cols, V value, F accumulate) {
  F32x16 sum = Zero();
  ForSixteens(cols, [&](size_t i, size_t count) {
    const F32x16 next = accumulate(sum, value(i, count));
    sum = count == kLanes ? next : SelectMask(TailMask(count), next, sum);
  });
  return SumLanes(sum);
}

// value(i, count): elements i to i + count - 1 of x + residual.
template <class V>
void NormalizeRow(size_t cols, V value, const float* gamma, const float* beta, float eps, float* y) {
  const float n = static_cast<float>(cols);
  const F32x16 mean = F32x16::Broadcast(Sum(cols, value, [](F32x16 sum, F32x16 v) { return sum + v; }) / n);
  const float squares = Sum(cols, value, [&](F32x16 sum, F32x16 v) { return Fma(v - mean, v - mean, sum); });
  const F32x16 deviation = F32x16::Broadcast(FirstLane(Sqrt(F32::Broadcast(squares / n + eps))));
  ForSixteens(cols, [&](size_t i, size_t count) {
    const F32x16 normalized = (value(i, count) - mean) / deviation;
    StoreFirst(y + i, count, Fma(normalized, LoadFirst(gamma + i, count), LoadFirst(beta + i, count)));
  });
}

}  // namespace

void LayerNorm(const float* x, const float* residual, size_t rows, size_t cols, const float* gamma, const float* beta,
               float eps, float* y) {
  for (size_t at = 0; at < rows * cols; at += cols) {
    if (residual) {
      const auto sum = [&](size_t i, size_t count) {
        return LoadFirst(x + at + i, count) + LoadFirst(residual + at + i, count);
      };
      NormalizeRow(cols, sum, gamma, beta, eps, y + at);
    } else {
      NormalizeRow(
          cols, [&](size_t i, size_t count) { return LoadFirst(x + at + i, count); }, gamma, beta, eps, y + at);
    }
  }
}

}  // namespace bitpress::neondot
