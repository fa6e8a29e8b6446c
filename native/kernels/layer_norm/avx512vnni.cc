#include "kernels/layer_norm/rows_in_step.h"
#include "kernels/simd/avx512.h"

namespace bitpress::avx512vnni {

void LayerNorm(const float* x, const float* residual, size_t rows, size_t cols, const float* gamma, const float* beta,
               float eps, float* y) {
  NormalizeAllRows<F32, 8>(x, residual, rows, cols, gamma, beta, eps, y);
}

}  // namespace bitpress::avx512vnni
