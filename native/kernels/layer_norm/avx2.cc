// Four rows in step, three passes each over rows that stay in L1: x + residual with its sum, squares, normalized
// values. x + residual is kept in y, which may be x or residual: each element is read before it is written.
//
// In step, because the summation order of numerics.h gives a row two registers of running sums: an addition every three
// cycles (a multiply-add every four) where two could begin in each.
#include "kernels/simd/avx2.h"

#include "kernels/layer_norm/layer_norm.h"

namespace bitpress::avx2 {
namespace {

// f(row, column, register 0 or 1 of its lanes, mask) for the last, incomplete step of kLanes columns.
template <int R, class F>
void ForTail(size_t begin, size_t cols, F f) {
  for (size_t half = 0; half < 2; ++half) {
    const size_t i = begin + half * kFloats;
    if (i >= cols) return;
    for (int r = 0; r < R; ++r) f(r, i, half, TailMask(cols - i));
  }
}

template <int R, bool kResidual>
void NormalizeRows(const float* x, const float* residual, size_t cols, const float* gamma, const float* beta, float eps,
                   float* y) {
  const float n = static_cast<float>(cols);
  const size_t whole = cols / kLanes * kLanes;
  F32 low[R], high[R];
  for (int r = 0; r < R; ++r) low[r] = high[r] = Zero();
  for (size_t i = 0; i < whole; i += kLanes) {
    for (int r = 0; r < R; ++r) {
      const size_t at = r * cols + i;
      F32 a = Load(x + at), b = Load(x + at + kFloats);
      if constexpr (kResidual) {
        a = a + Load(residual + at);
        b = b + Load(residual + at + kFloats);
      }
      Store(y + at, a);
      Store(y + at + kFloats, b);
      low[r] = low[r] + a;
      high[r] = high[r] + b;
    }
  }
  ForTail<R>(whole, cols, [&](int r, size_t i, size_t half, I32 mask) {
    F32 v = LoadMasked(x + r * cols + i, mask);
    if constexpr (kResidual) v = v + LoadMasked(residual + r * cols + i, mask);
    StoreMasked(y + r * cols + i, mask, v);
    F32& sum = half == 0 ? low[r] : high[r];
    sum = SelectMask(mask, sum + v, sum);
  });

  F32 mean[R];
  for (int r = 0; r < R; ++r) {
    mean[r] = F32::Broadcast(SumLanes(low[r], high[r]) / n);
    low[r] = high[r] = Zero();
  }
  for (size_t i = 0; i < whole; i += kLanes) {
    for (int r = 0; r < R; ++r) {
      const F32 a = Load(y + r * cols + i) - mean[r], b = Load(y + r * cols + i + kFloats) - mean[r];
      low[r] = Fma(a, a, low[r]);
      high[r] = Fma(b, b, high[r]);
    }
  }
  ForTail<R>(whole, cols, [&](int r, size_t i, size_t half, I32 mask) {
    const F32 v = LoadMasked(y + r * cols + i, mask) - mean[r];
    F32& sum = half == 0 ? low[r] : high[r];
    sum = SelectMask(mask, Fma(v, v, sum), sum);
  });

  F32 deviation[R];
  for (int r = 0; r < R; ++r) {
    deviation[r] = {_mm256_sqrt_ps(_mm256_set1_ps(SumLanes(low[r], high[r]) / n + eps))};
  }
  for (size_t i = 0; i + kFloats <= cols; i += kFloats) {
    const F32 g = Load(gamma + i), b = Load(beta + i);
    for (int r = 0; r < R; ++r) {
      Store(y + r * cols + i, Fma((Load(y + r * cols + i) - mean[r]) / deviation[r], g, b));
    }
  }
  if (const size_t rest = cols % kFloats) {
    const size_t i = cols - rest;
    const I32 mask = TailMask(rest);
    const F32 g = LoadMasked(gamma + i, mask), b = LoadMasked(beta + i, mask);
    for (int r = 0; r < R; ++r) {
      StoreMasked(y + r * cols + i, mask, Fma((LoadMasked(y + r * cols + i, mask) - mean[r]) / deviation[r], g, b));
    }
  }
}

template <int R>
void NormalizeRows(const float* x, const float* residual, size_t cols, const float* gamma, const float* beta, float eps,
                   float* y) {
  if (residual) {
    NormalizeRows<R, true>(x, residual, cols, gamma, beta, eps, y);
  } else {
    NormalizeRows<R, false>(x, nullptr, cols, gamma, beta, eps, y);
  }
}

}  // namespace

void LayerNorm(const float* x, const float* residual, size_t rows, size_t cols, const float* gamma, const float* beta,
               float eps, float* y) {
  constexpr int kInStep = 4;
  size_t row = 0;
  for (; row + kInStep <= rows; row += kInStep) {
    const size_t at = row * cols;
    NormalizeRows<kInStep>(x + at, residual ? residual + at : nullptr, cols, gamma, beta, eps, y + at);
  }
  for (; row < rows; ++row) {
    const size_t at = row * cols;
    NormalizeRows<1>(x + at, residual ? residual + at : nullptr, cols, gamma, beta, eps, y + at);
  }
}

}  // namespace bitpress::avx2
