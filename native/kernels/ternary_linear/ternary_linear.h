// 8-bit activations times ternary weights: y = (s_x a) * sum_k(b q) + (o_x a) * sum_k(b) + bias.
//
// q: activation codes 0..255 with scale s_x and offset o_x per row; b: ternary codes; a: the matrix's scale.
// The integer sum is exact. The epilogue is fma(float(acc), s_x * a, fma(o_x * a, float(code_sum), bias)), in that
// order.
#pragma once

#include <memory>
#include <vector>

#include "kernels/numerics.h"

namespace bitpress {

// Output columns of one panel and inputs of one step of the panel layout.
constexpr size_t kPanelColumns = 16;
constexpr size_t kPanelDepth = 4;

// A ternary matrix re-laid for the kernels: panels of kPanelColumns outputs, 2 bits a weight, the inner dimension
// padded to a multiple of what the layout needs and the outputs to whole panels, both with zero weights.
struct TernaryMatrix {
  size_t outputs = 0, inputs = 0;
  size_t panels = 0;         // ceil(outputs / kPanelColumns)
  size_t padded_inputs = 0;  // the codes of a row of activations must be readable (and zero) up to here
  size_t panel_bytes = 0;
  float scale = 1.0f;
  std::vector<uint8_t> packed;    // panels x panel_bytes
  std::vector<int32_t> code_sum;  // sum of b per output, panels x kPanelColumns
  std::vector<float> bias;        // panels x kPanelColumns
};

// codes: outputs x inputs in {-1, 0, 1}. The layout is the same for every ISA.
TernaryMatrix PackTernary(const int8_t* codes, size_t outputs, size_t inputs, float scale, const float* bias);

// a: m rows of activation codes, stride lda >= w.padded_inputs. y: m x w.outputs, row stride ldy; columns of panels
// panel_begin..panel_end-1 are written.
using TernaryLinearFn = void (*)(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                                 const TernaryMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy);

namespace reference {
void TernaryLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const TernaryMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy);
}
namespace avx2 {
void TernaryLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const TernaryMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy);
}
}  // namespace bitpress
