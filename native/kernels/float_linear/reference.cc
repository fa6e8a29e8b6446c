// Slow reference: one output at a time.
#include <algorithm>
#include <cmath>

#include "kernels/float_linear/float_linear.h"

namespace bitpress::reference {

void FloatLinear(const float* x, size_t ldx, size_t m, const FloatMatrix& w, size_t panel_begin, size_t panel_end,
                 float* y, size_t ldy) {
  const size_t end = std::min(panel_end * kFloatPanelColumns, w.outputs);
  for (size_t row = 0; row < m; ++row) {
    for (size_t n = panel_begin * kFloatPanelColumns; n < end; ++n) {
      const float* panel = w.packed.data() + n / kFloatPanelColumns * w.inputs * kFloatPanelColumns;
      float sum = 0.0f;
      for (size_t k = 0; k < w.inputs; ++k) {
        sum = std::fma(x[row * ldx + k], panel[k * kFloatPanelColumns + n % kFloatPanelColumns], sum);
      }
      y[row * ldy + n] = sum + w.bias[n];
    }
  }
}

}  // namespace bitpress::reference
