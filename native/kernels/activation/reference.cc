// Slow reference: one element at a time.
#include "kernels/activation/activation.h"
#include "kernels/activation/polynomials.h"
#include "kernels/simd/scalar.h"

namespace bitpress::reference {

void Activate(Activation kind, float* x, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const scalar::F32 v{x[i]};
    switch (kind) {
      case Activation::kGelu:
        x[i] = Gelu(v).v;
        break;
      case Activation::kGeluTanh:
        x[i] = GeluTanh(v).v;
        break;
      case Activation::kRelu:
        x[i] = Relu(v).v;
        break;
      case Activation::kSilu:
        x[i] = Silu(v).v;
        break;
      case Activation::kTanh:
        x[i] = Tanh(v).v;
        break;
      case Activation::kExp:
        x[i] = Exp(v).v;
        break;
    }
  }
}

}  // namespace bitpress::reference
