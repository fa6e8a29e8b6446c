// The shared polynomials on sixteen floats.
#include "kernels/simd/neon.h"

#include "kernels/activation/activation.h"
#include "kernels/activation/polynomials.h"

namespace bitpress::neondot {
namespace {

template <class F>
void Map(float* x, size_t n, F f) {
  ForSixteens(n, [&](size_t i, size_t count) { StoreFirst(x + i, count, f(LoadFirst(x + i, count))); });
}

}  // namespace

void Activate(Activation kind, float* x, size_t n) {
  switch (kind) {
    case Activation::kGelu:
      return Map(x, n, [](auto v) { return Gelu(v); });
    case Activation::kGeluTanh:
      return Map(x, n, [](auto v) { return GeluTanh(v); });
    case Activation::kRelu:
      return Map(x, n, [](auto v) { return Relu(v); });
    case Activation::kSilu:
      return Map(x, n, [](auto v) { return Silu(v); });
    case Activation::kTanh:
      return Map(x, n, [](auto v) { return Tanh(v); });
    case Activation::kExp:
      return Map(x, n, [](auto v) { return Exp(v); });
  }
}

}  // namespace bitpress::neondot
