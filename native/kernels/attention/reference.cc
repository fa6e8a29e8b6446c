// Slow reference: one query at a time, plain loops.
#include <algorithm>
#include <cmath>

#include "kernels/activation/polynomials.h"
#include "kernels/attention/scratch.h"
#include "kernels/quantize/quantize.h"
#include "kernels/simd/lane_sum.h"
#include "kernels/simd/scalar.h"

namespace bitpress::reference {
namespace {

// In place: exp(x - max) / sum.
void Softmax(float* x, size_t n) {
  const float max = *std::max_element(x, x + n);
  LaneSum sum;
  for (size_t j = 0; j < n; ++j) {
    x[j] = Exp(scalar::F32{x[j] - max}).v;
    sum.Add(j, x[j]);
  }
  const float total = sum.Total();
  for (size_t j = 0; j < n; ++j) x[j] /= total;
}

}  // namespace

void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch) {
  const size_t tokens = head.tokens, d = head.head_size;
  size_t bytes;
  const AttentionBuffers b = LayOutAttention(scratch, tokens, d, &bytes);
  const float root = std::sqrt(static_cast<float>(d));

  QuantizeRows(head.key, head.stride, tokens, d, specs.key, b.key_codes, b.code_stride, b.key_scale, b.key_offset,
               b.key_sum);
  float value_scale, value_offset;
  QuantizeBlock(head.value, head.stride, tokens, d, specs.value, b.value_codes, b.code_stride, &value_scale,
                &value_offset);

  for (size_t i = 0; i < tokens; ++i) {
    QuantizeRows(head.query + i * head.stride, head.stride, 1, d, specs.query, b.query_codes, b.code_stride,
                 b.query_scale, b.query_offset, b.query_sum);
    const float si = *b.query_scale, oi = *b.query_offset, sum_q = static_cast<float>(*b.query_sum);
    for (size_t j = 0; j < tokens; ++j) {
      int32_t qk = 0;
      for (size_t k = 0; k < d; ++k) qk += b.query_codes[k] * b.key_codes[j * b.code_stride + k];
      const float sj = b.key_scale[j], oj = b.key_offset[j], sum_k = static_cast<float>(b.key_sum[j]);
      const float offsets = (static_cast<float>(d) * oi) * oj;
      const float t =
          std::fma(si * sj, static_cast<float>(qk), std::fma(si * oj, sum_q, std::fma(sj * oi, sum_k, offsets)));
      b.scores[j] = t / root;
    }
    Softmax(b.scores, tokens);

    float scale, offset;
    int32_t sum_p;
    QuantizeRows(b.scores, tokens, 1, tokens, specs.probabilities, b.probability_codes, tokens, &scale, &offset,
                 &sum_p);
    for (size_t c = 0; c < d; ++c) {
      int32_t pv = 0;
      for (size_t j = 0; j < tokens; ++j) pv += b.probability_codes[j] * b.value_codes[j * b.code_stride + c];
      const float of_offset = value_offset * static_cast<float>(sum_p);
      head.context[i * head.context_stride + c] = scale * std::fma(value_scale, static_cast<float>(pv), of_offset);
    }
  }
}

void AttentionFloat(const AttentionHead& head, void* scratch) {
  const size_t tokens = head.tokens, d = head.head_size;
  size_t bytes;
  float* scores = LayOutAttention(scratch, tokens, d, &bytes).scores;
  const float root = std::sqrt(static_cast<float>(d));

  for (size_t i = 0; i < tokens; ++i) {
    for (size_t j = 0; j < tokens; ++j) {
      float dot = 0.0f;
      for (size_t k = 0; k < d; ++k)
        dot = std::fma(head.query[i * head.stride + k], head.key[j * head.stride + k], dot);
      scores[j] = dot / root;
    }
    Softmax(scores, tokens);
    for (size_t c = 0; c < d; ++c) {
      float sum = 0.0f;
      for (size_t j = 0; j < tokens; ++j) sum = std::fma(scores[j], head.value[j * head.stride + c], sum);
      head.context[i * head.context_stride + c] = sum;
    }
  }
}

}  // namespace bitpress::reference
