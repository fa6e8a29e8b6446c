// Eight elements at a time through the shared polynomials.
#include "kernels/simd/avx2.h"

#include "kernels/activation/activation.h"
#include "kernels/activation/polynomials.h"

namespace bitpress::avx2 {
namespace {

template <class F>
void Map(float* x, size_t n, F f) {
  size_t i = 0;
  for (; i + kFloats <= n; i += kFloats) Store(x + i, f(Load(x + i)));
  if (i < n) {
    const I32 mask = TailMask(n - i);
    StoreMasked(x + i, mask, f(LoadMasked(x + i, mask)));
  }
}

}  // namespace

void Activate(Activation kind, float* x, size_t n) {
  switch (kind) {
    case Activation::kGelu:
      return Map(x, n, [](F32 v) { return Gelu(v); });
    case Activation::kGeluTanh:
      return Map(x, n, [](F32 v) { return GeluTanh(v); });
    case Activation::kRelu:
      return Map(x, n, [](F32 v) { return Relu(v); });
    case Activation::kSilu:
      return Map(x, n, [](F32 v) { return Silu(v); });
    case Activation::kTanh:
      return Map(x, n, [](F32 v) { return Tanh(v); });
    case Activation::kExp:
      return Map(x, n, [](F32 v) { return Exp(v); });
  }
}

}  // namespace bitpress::avx2
