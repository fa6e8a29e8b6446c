#include "kernels/float_linear/float_linear.h"

namespace bitpress {

FloatMatrix PackFloat(const float* w, size_t outputs, size_t inputs, const float* bias) {
  FloatMatrix matrix;
  matrix.outputs = outputs;
  matrix.inputs = inputs;
  matrix.panels = RoundUp(outputs, kFloatPanelColumns) / kFloatPanelColumns;
  matrix.packed.resize(matrix.panels * inputs * kFloatPanelColumns);
  matrix.bias.resize(matrix.panels * kFloatPanelColumns);
  for (size_t n = 0; n < outputs; ++n) {
    float* panel = matrix.packed.data() + n / kFloatPanelColumns * inputs * kFloatPanelColumns;
    for (size_t k = 0; k < inputs; ++k) panel[k * kFloatPanelColumns + n % kFloatPanelColumns] = w[n * inputs + k];
    if (bias) matrix.bias[n] = bias[n];
  }
  return matrix;
}

}  // namespace bitpress
