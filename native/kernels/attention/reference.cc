// Slow reference: one query at a time, plain loops.
#include <algorithm>
#include <cmath>

#include "kernels/activation/polynomials.h"
#include "kernels/attention/scratch.h"
#include "kernels/quantize/codebook.h"
#include "kernels/quantize/quantize.h"
#include "kernels/simd/lane_sum.h"
#include "kernels/simd/scalar.h"

namespace bitpress::reference {
namespace {

using scalar::F32;

// In place: exp(x - max); returns the sum.
float Exponentials(float* x, size_t n) {
  const float max = *std::max_element(x, x + n);
  LaneSum sum;
  for (size_t j = 0; j < n; ++j) {
    x[j] = Exp(F32{x[j] - max}).v;
    sum.Add(j, x[j]);
  }
  return sum.Total();
}

// Exponentials with their sum to codes; returns their scale.
float ProbabilityCodes(const float* e, size_t n, float total, const QuantizeSpec& spec, uint8_t* codes) {
  const float high = CodeLimits<F32>(spec).highest;
  for (size_t j = 0; j < n; ++j) {
    const float code = std::nearbyint(spec.is_static ? e[j] / total / spec.scale : e[j] * high);
    codes[j] = static_cast<uint8_t>(code > 0.0f ? std::min(code, high) : 0.0f);  // 0 where it is NaN
  }
  return spec.is_static ? spec.scale : 1.0f / total / high;
}

}  // namespace

void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch) {
  const size_t tokens = head.tokens, d = head.head_size;
  size_t bytes;
  const AttentionBuffers b = LayOutAttention(scratch, tokens, d, &bytes);
  const float root = std::sqrt(static_cast<float>(d));

  // Bytes, where the fast kernels have panels and pairs.
  const auto query_codes = reinterpret_cast<uint8_t*>(b.query_codes);
  const auto key_codes = reinterpret_cast<uint8_t*>(b.key_panels);
  const auto value_codes = reinterpret_cast<uint8_t*>(b.value_panels);
  const auto probability_codes = reinterpret_cast<uint8_t*>(b.probability_codes);
  const auto key_sum = reinterpret_cast<int32_t*>(b.query_sum);
  QuantizeRows(head.key, head.stride, tokens, d, specs.key, key_codes, d, b.key_scale, b.key_offset, key_sum);
  for (size_t j = 0; j < tokens; ++j) {
    b.key_constant[j] =
        std::fma(b.key_scale[j], static_cast<float>(key_sum[j]), static_cast<float>(d) * b.key_offset[j]);
  }
  float value_scale, value_offset;
  QuantizeBlock(head.value, head.stride, tokens, d, specs.value, value_codes, d, &value_scale, &value_offset);

  for (size_t i = 0; i < head.queries; ++i) {
    float scale, offset;
    int32_t sum_q;
    QuantizeRows(head.query + i * head.stride, head.stride, 1, d, specs.query, query_codes, d, &scale, &offset, &sum_q);
    for (size_t j = 0; j < tokens; ++j) {
      int32_t qk = 0;
      for (size_t k = 0; k < d; ++k) qk += query_codes[k] * key_codes[j * d + k];
      const float products =
          std::fma(b.key_scale[j], static_cast<float>(qk), b.key_offset[j] * static_cast<float>(sum_q));
      b.scores[j] = std::fma(scale / root, products, (offset / root) * b.key_constant[j]);
    }
    float probability_scale = 0.0f;
    TimeSoftmax(head.clock, [&] {
      const float total = Exponentials(b.scores, tokens);
      probability_scale = ProbabilityCodes(b.scores, tokens, total, specs.probabilities, probability_codes);
    });
    int32_t sum_p = 0;
    for (size_t j = 0; j < tokens; ++j) sum_p += probability_codes[j];
    for (size_t c = 0; c < d; ++c) {
      int32_t pv = 0;
      for (size_t j = 0; j < tokens; ++j) pv += probability_codes[j] * value_codes[j * d + c];
      head.context[i * head.context_stride + c] =
          probability_scale * std::fma(value_scale, static_cast<float>(pv), value_offset * static_cast<float>(sum_p));
    }
  }
}

void AttentionFloat(const AttentionHead& head, void* scratch) {
  const size_t tokens = head.tokens, d = head.head_size;
  size_t bytes;
  float* scores = LayOutAttention(scratch, tokens, d, &bytes).scores;
  const float root = std::sqrt(static_cast<float>(d));

  for (size_t i = 0; i < head.queries; ++i) {
    for (size_t j = 0; j < tokens; ++j) {
      float dot = 0.0f;
      for (size_t k = 0; k < d; ++k)
        dot = std::fma(head.query[i * head.stride + k], head.key[j * head.stride + k], dot);
      scores[j] = dot / root;
    }
    TimeSoftmax(head.clock, [&] {
      const float total = Exponentials(scores, tokens);
      for (size_t j = 0; j < tokens; ++j) scores[j] /= total;
    });
    for (size_t c = 0; c < d; ++c) {
      float sum = 0.0f;
      for (size_t j = 0; j < tokens; ++j) sum = std::fma(scores[j], head.value[j * head.stride + c], sum);
      head.context[i * head.context_stride + c] = sum;
    }
  }
}

}  // namespace bitpress::reference
