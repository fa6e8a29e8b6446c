// Elementwise functions, in place: GELU (erf and tanh forms), ReLU, SiLU, tanh, exp. Own polynomials, absolute error
// stated beside each in kernels/activation/polynomials.h.
#pragma once

#include "kernels/numerics.h"

namespace bitpress {

enum class Activation { kGelu, kGeluTanh, kRelu, kSilu, kTanh, kExp };

using ActivateFn = void (*)(Activation kind, float* x, size_t n);
namespace reference {
void Activate(Activation kind, float* x, size_t n);
}
namespace avx2 {
void Activate(Activation kind, float* x, size_t n);
}
namespace avx512vnni {
void Activate(Activation kind, float* x, size_t n);
}
namespace neondot {
void Activate(Activation kind, float* x, size_t n);
}
}  // namespace bitpress
