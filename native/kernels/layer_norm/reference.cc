// Slow reference: the formula as layer_norm.h states it.
#include <cmath>

#include "kernels/layer_norm/layer_norm.h"
#include "kernels/simd/lane_sum.h"

namespace bitpress::reference {

void LayerNorm(const float* x, const float* residual, size_t rows, size_t cols, const float* gamma, const float* beta,
               float eps, float* y) {
  for (size_t row = 0; row < rows; ++row) {
    const float* xr = x + row * cols;
    const float* rr = residual ? residual + row * cols : nullptr;
    float* yr = y + row * cols;
    const auto value = [&](size_t i) { return rr ? xr[i] + rr[i] : xr[i]; };

    LaneSum sum;
    for (size_t i = 0; i < cols; ++i) sum.Add(i, value(i));
    const float mean = sum.Total() / static_cast<float>(cols);
    LaneSum squares;
    for (size_t i = 0; i < cols; ++i) squares.AddSquare(i, value(i) - mean);
    const float deviation = std::sqrt(squares.Total() / static_cast<float>(cols) + eps);
    for (size_t i = 0; i < cols; ++i) yr[i] = std::fma((value(i) - mean) / deviation, gamma[i], beta[i]);
  }
}

}  // namespace bitpress::reference
