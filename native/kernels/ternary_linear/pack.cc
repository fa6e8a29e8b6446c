#include "kernels/ternary_linear/layout.h"

namespace bitpress {

TernaryMatrix PackTernary(const int8_t* codes, size_t outputs, size_t inputs, float scale, const float* bias) {
  TernaryMatrix matrix;
  matrix.outputs = outputs;
  matrix.inputs = inputs;
  matrix.panels = RoundUp(outputs, kPanelColumns) / kPanelColumns;
  matrix.padded_inputs = RoundUp(inputs, kBlockInputs);
  matrix.panel_bytes = matrix.padded_inputs / kBlockInputs * sizeof(TernaryBlock);
  matrix.scale = scale;
  matrix.packed.resize(matrix.panels * matrix.panel_bytes);
  matrix.code_sum.resize(matrix.panels * kPanelColumns);
  matrix.bias.resize(matrix.panels * kPanelColumns);
  for (size_t n = 0; n < outputs; ++n) {
    uint8_t* panel = matrix.packed.data() + n / kPanelColumns * matrix.panel_bytes;
    for (size_t k = 0; k < inputs; ++k) {
      const int8_t code = codes[n * inputs + k];
      const TernaryPosition at = PositionInBlock(k % kBlockInputs, n % kPanelColumns);
      panel[k / kBlockInputs * sizeof(TernaryBlock) + at.byte] |= static_cast<uint8_t>((code & 3) << at.shift);
      matrix.code_sum[n] += code;
    }
    if (bias) matrix.bias[n] = bias[n];
  }
  return matrix;
}

}  // namespace bitpress
