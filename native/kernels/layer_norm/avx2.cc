#include "kernels/layer_norm/rows_in_step.h"
#include "kernels/simd/avx2_pair.h"

namespace bitpress::avx2 {

void LayerNorm(const float* x, const float* residual, size_t rows, size_t cols, const float* gamma, const float* beta,
               float eps, float* y) {
  NormalizeAllRows<F32x2, 4>(x, residual, rows, cols, gamma, beta, eps, y);
}

}  // namespace bitpress::avx2
