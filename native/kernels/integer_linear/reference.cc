// Slow reference: one output at a time, each weight read from its bits.
#include <algorithm>
#include <cmath>

#include "kernels/integer_linear/layout.h"

namespace bitpress::reference {
namespace {

int Weight(const IntegerMatrix& w, size_t n, size_t k) {
  const uint8_t* block = w.packed.get() + n / kPanelColumns * w.panel_bytes + k / kBlockInputs * BlockBytes(w.bits);
  const unsigned field = FieldInBlock(block, w.bits, k % kBlockInputs, n % kPanelColumns);
  return w.bits == 8 ? static_cast<int8_t>(field) : w.table[field];
}

// The scale or offset of output n in group g.
float OfGroup(const IntegerMatrix& w, const std::vector<float>& values, size_t n, size_t g) {
  return values[(n / kPanelColumns * w.groups + g) * kPanelColumns + n % kPanelColumns];
}

}  // namespace

void IntegerLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
  const size_t end = std::min(panel_end * kPanelColumns, w.outputs);
  for (size_t row = 0; row < m; ++row) {
    for (size_t n = panel_begin * kPanelColumns; n < end; ++n) {
      int32_t sum = 0;  // of one group; see kMaxIntegerInputs
      float total = 0.0f;
      for (size_t g = 0; g < w.groups; ++g) {
        int32_t code_sum = 0;
        sum = 0;
        const size_t begin = g * w.group_inputs, first = begin % w.term_inputs;
        for (size_t k = first; k < std::min(w.inputs, first + w.group_inputs); ++k) {
          sum += Weight(w, n, begin - first + k) * a[row * lda + k];
          code_sum += a[row * lda + k];
        }
        total = std::fma(static_cast<float>(sum), OfGroup(w, w.scale, n, g), total);
        if (!w.offset.empty()) total = std::fma(static_cast<float>(code_sum), OfGroup(w, w.offset, n, g), total);
      }
      if (!w.outliers.empty()) {
        const size_t half = n / kOutlierColumns;
        for (size_t i = w.outlier_begin[half]; i < w.outlier_begin[half + 1]; ++i) {
          const Outlier& o = w.outliers[i];
          if (o.column != n % kOutlierColumns) continue;
          total = std::fma(static_cast<float>(a[row * lda + o.input]), o.delta, total);
        }
      }
      if (w.is_chained() || !w.outliers.empty()) {
        y[row * ldy + n] = std::fma(a_scale[row], total, std::fma(a_offset[row], w.weight_sum[n], w.bias[n]));
      } else {
        const float scale = a_scale[row] * OfGroup(w, w.scale, n, 0),
                    offset = a_offset[row] * OfGroup(w, w.scale, n, 0);
        const float constant = std::fma(offset, static_cast<float>(w.code_sum[n]), w.bias[n]);
        y[row * ldy + n] = std::fma(static_cast<float>(sum), scale, constant);
      }
    }
  }
}

}  // namespace bitpress::reference
