// The shared polynomials, four registers in step.
#include "kernels/activation/activation.h"
#include "kernels/activation/polynomials.h"
#include "kernels/simd/avx2_pair.h"

namespace bitpress::avx2 {
namespace {

// [Eight in step: the formula's constants and intermediate values no longer fit the registers.]
template <class F>
void Map(float* x, size_t n, F f) {
  size_t i = 0;
  for (; i + 4 * kFloats <= n; i += 4 * kFloats) Store4(x + i, f(Load4(x + i)));
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

}  // namespace bitpress::avx2
