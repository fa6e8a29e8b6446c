// y = (x + residual - mean) / sqrt(var + eps) * gamma + beta, per row; biased variance of the centred values, in two
// passes. mean and var are kLanes-order sums divided by n; the last step is fma((v - mean) / sqrt(var + eps), gamma,
// beta).
#pragma once

#include "kernels/numerics.h"

namespace bitpress {

// x, residual (may be NULL), y: rows x cols, dense. y may be x or residual.
using LayerNormFn = void (*)(const float* x, const float* residual, size_t rows, size_t cols, const float* gamma,
                             const float* beta, float eps, float* y);
namespace reference {
void LayerNorm(const float* x, const float* residual, size_t rows, size_t cols, const float* gamma, const float* beta,
               float eps, float* y);
}
namespace avx2 {
void LayerNorm(const float* x, const float* residual, size_t rows, size_t cols, const float* gamma, const float* beta,
               float eps, float* y);
}
namespace avx512vnni {
void LayerNorm(const float* x, const float* residual, size_t rows, size_t cols, const float* gamma, const float* beta,
               float eps, float* y);
}
namespace neondot {
void LayerNorm(const float* x, const float* residual, size_t rows, size_t cols, const float* gamma, const float* beta,
               float eps, float* y);
}
}  // namespace bitpress
