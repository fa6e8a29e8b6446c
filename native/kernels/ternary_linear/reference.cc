// Slow reference: one output at a time, each weight read from its two bits.
#include <algorithm>
#include <cmath>

#include "kernels/ternary_linear/layout.h"

namespace bitpress::reference {
namespace {

int Weight(const TernaryMatrix& w, size_t n, size_t k) {
  const TernaryPosition at = PositionInBlock(k % kBlockInputs, n % kPanelColumns);
  const uint8_t* block = w.packed.data() + n / kPanelColumns * w.panel_bytes + k / kBlockInputs * sizeof(TernaryBlock);
  const int bits = block[at.byte] >> at.shift & 3;
  return bits < 2 ? bits : bits - 4;
}

}  // namespace

void TernaryLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const TernaryMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
  const size_t end = std::min(panel_end * kPanelColumns, w.outputs);
  for (size_t row = 0; row < m; ++row) {
    const float scale = a_scale[row] * w.scale, offset = a_offset[row] * w.scale;
    for (size_t n = panel_begin * kPanelColumns; n < end; ++n) {
      int32_t sum = 0;
      for (size_t k = 0; k < w.inputs; ++k) sum += Weight(w, n, k) * a[row * lda + k];
      const float constant = std::fma(offset, static_cast<float>(w.code_sum[n]), w.bias[n]);
      y[row * ldy + n] = std::fma(static_cast<float>(sum), scale, constant);
    }
  }
}

}  // namespace bitpress::reference
