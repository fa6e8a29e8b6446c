// LayerNorm of several rows in step, written once over the vector type V of kLanes floats: two registers of AVX2, one
// of AVX-512. Three passes over rows that stay in L1: x + residual with its sum, squares, normalized values. x +
// residual is kept in y, which may be x or residual: each element is read before it is written.
//
// In step, because the summation order of numerics.h gives a row one V of running sums: an addition every three cycles
// (a multiply-add every four) where two could begin in each.
#pragma once

#include "kernels/layer_norm/layer_norm.h"

namespace bitpress {

// f(row, column, floats) for all columns of R rows, V::kCount floats at a time, the last of a row perhaps fewer.
template <class V, int R, class F>
[[gnu::always_inline]] inline void ForSteps(size_t cols, F f) {
  size_t i = 0;
  for (; i + V::kCount <= cols; i += V::kCount) {
    for (int r = 0; r < R; ++r) f(r, i, V::kCount);
  }
  if (i < cols) {
    for (int r = 0; r < R; ++r) f(r, i, cols - i);
  }
}

template <class V>
[[gnu::always_inline]] inline V LoadStep(const float* p, size_t n) {
  return n == V::kCount ? V::Load(p) : V::LoadFirst(p, n);
}
template <class V>
[[gnu::always_inline]] inline void StoreStep(float* p, size_t n, V a) {
  if (n == V::kCount) {
    Store(p, a);
  } else {
    StoreFirst(p, n, a);
  }
}
// The running sums `before` with those of the first n lanes of `after`.
template <class V>
[[gnu::always_inline]] inline V SumStep(size_t n, V after, V before) {
  return n == V::kCount ? after : FirstOf(n, after, before);
}

template <class V, int R, bool kResidual>
inline void NormalizeRows(const float* x, const float* residual, size_t cols, const float* gamma, const float* beta,
                          float eps, float* y) {
  static_assert(V::kCount == kLanes, "the lanes are those of the summation order");
  const float n = static_cast<float>(cols);
  V sum[R], mean[R], deviation[R];
  for (int r = 0; r < R; ++r) sum[r] = V::Broadcast(0.0f);
  ForSteps<V, R>(cols, [&](int r, size_t i, size_t count) {
    const size_t at = r * cols + i;
    V v = LoadStep<V>(x + at, count);
    if constexpr (kResidual) v = v + LoadStep<V>(residual + at, count);
    StoreStep(y + at, count, v);
    sum[r] = SumStep(count, sum[r] + v, sum[r]);
  });
  for (int r = 0; r < R; ++r) {
    mean[r] = V::Broadcast(SumLanes(sum[r]) / n);
    sum[r] = V::Broadcast(0.0f);
  }
  ForSteps<V, R>(cols, [&](int r, size_t i, size_t count) {
    const V v = LoadStep<V>(y + r * cols + i, count) - mean[r];
    sum[r] = SumStep(count, Fma(v, v, sum[r]), sum[r]);
  });
  for (int r = 0; r < R; ++r) deviation[r] = Sqrt(V::Broadcast(SumLanes(sum[r]) / n + eps));
  ForSteps<V, R>(cols, [&](int r, size_t i, size_t count) {
    float* at = y + r * cols + i;
    const V normalized = (LoadStep<V>(at, count) - mean[r]) / deviation[r];
    StoreStep(at, count, Fma(normalized, LoadStep<V>(gamma + i, count), LoadStep<V>(beta + i, count)));
  });
}

// kInStep rows at a time, the last ones singly.
template <class V, int kInStep>
inline void NormalizeAllRows(const float* x, const float* residual, size_t rows, size_t cols, const float* gamma,
                             const float* beta, float eps, float* y) {
  const auto normalize = [&](auto function, size_t row) {
    const size_t at = row * cols;
    function(x + at, residual ? residual + at : nullptr, cols, gamma, beta, eps, y + at);
  };
  size_t row = 0;
  for (; row + kInStep <= rows; row += kInStep) {
    normalize(residual ? NormalizeRows<V, kInStep, true> : NormalizeRows<V, kInStep, false>, row);
  }
  for (; row < rows; ++row) normalize(residual ? NormalizeRows<V, 1, true> : NormalizeRows<V, 1, false>, row);
}

}  // namespace bitpress
