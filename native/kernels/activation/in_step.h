// The activations over vectors: Wide is a few registers V in step (simd/avx2_pair.h).
#pragma once

#include "kernels/activation/activation.h"
#include "kernels/activation/polynomials.h"

namespace bitpress {

template <class Wide, class V, class F>
inline void MapInStep(float* x, size_t n, F f) {
  size_t i = 0;
  for (; i + Wide::kCount <= n; i += Wide::kCount) Store(x + i, f(Wide::Load(x + i)));
  for (; i + V::kCount <= n; i += V::kCount) Store(x + i, f(V::Load(x + i)));
  if (i < n) StoreFirst(x + i, n - i, f(V::LoadFirst(x + i, n - i)));
}

template <class Wide, class V>
inline void ActivateInStep(Activation kind, float* x, size_t n) {
  switch (kind) {
    case Activation::kGelu:
      return MapInStep<Wide, V>(x, n, [](auto v) { return Gelu(v); });
    case Activation::kGeluTanh:
      return MapInStep<Wide, V>(x, n, [](auto v) { return GeluTanh(v); });
    case Activation::kRelu:
      return MapInStep<Wide, V>(x, n, [](auto v) { return Relu(v); });
    case Activation::kSilu:
      return MapInStep<Wide, V>(x, n, [](auto v) { return Silu(v); });
    case Activation::kTanh:
      return MapInStep<Wide, V>(x, n, [](auto v) { return Tanh(v); });
    case Activation::kExp:
      return MapInStep<Wide, V>(x, n, [](auto v) { return Exp(v); });
  }
}

}  // namespace bitpress
