// fp32 linear layer: y = x wT + bias; each output is one fma chain over the inputs in order, starting at +0, then +
// bias.
#pragma once

#include <vector>

#include "kernels/numerics.h"

namespace bitpress {

// w re-laid in panels of 16 outputs: packed[panel][k][16].
struct FloatMatrix {
  size_t outputs = 0, inputs = 0, panels = 0;
  std::vector<float> packed;
  std::vector<float> bias;  // panels x 16
};

constexpr size_t kFloatPanelColumns = 16;

// w: outputs x inputs.
FloatMatrix PackFloat(const float* w, size_t outputs, size_t inputs, const float* bias);

// x: m x inputs, stride ldx. y: m x outputs, stride ldy; the columns of panels panel_begin..panel_end-1 are written.
using FloatLinearFn = void (*)(const float* x, size_t ldx, size_t m, const FloatMatrix& w, size_t panel_begin,
                               size_t panel_end, float* y, size_t ldy);

namespace reference {
void FloatLinear(const float* x, size_t ldx, size_t m, const FloatMatrix& w, size_t panel_begin, size_t panel_end,
                 float* y, size_t ldy);
}
namespace avx2 {
void FloatLinear(const float* x, size_t ldx, size_t m, const FloatMatrix& w, size_t panel_begin, size_t panel_end,
                 float* y, size_t ldy);
}
namespace avx512vnni {
void FloatLinear(const float* x, size_t ldx, size_t m, const FloatMatrix& w, size_t panel_begin, size_t panel_end,
                 float* y, size_t ldy);
}
namespace neondot {
void FloatLinear(const float* x, size_t ldx, size_t m, const FloatMatrix& w, size_t panel_begin, size_t panel_end,
                 float* y, size_t ldy);
}
}  // namespace bitpress
