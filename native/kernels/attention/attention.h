// Attention of one head of one sequence, in fp32 or with 8-bit products, of codes of 8 bits or of 4.
//
// 8-bit: Q and K are quantized per (token, head), V once per (sequence, head), probabilities per row (offset 0).
//   score(i,j) = (s_i s_j qk + s_i o_j sum(q_i) + s_j o_i sum(k_j) + d o_i o_j) / sqrt(d), evaluated as
//     fma(s_i / sqrt(d), fma(s_j, float(qk), o_j * float(sum q_i)), (o_i / sqrt(d)) * fma(s_j, float(sum k_j), d *
//     o_j))
//   context(i,c) = s_p(i) * fma(s_v, float(pv), o_v * float(sum p_i))
// Softmax: e_j = exp(x_j - max) by the engine's own polynomial, summed in kLanes order, divided by the sum.
// Its quantization needs no search and no division, as the largest e_j is exp(0) = 1:
//   code(j) = round_half_even(e_j * high), s_p = (1 / sum) / high, high = 255 (symmetric: 127; of 4 bits 15 and 7)
// (a clip does not apply), and with a static scale code(j) = clamp(round_half_even((e_j / sum) / s_p), 0, high).
#pragma once

#include "kernels/numerics.h"

namespace bitpress {

// Of a profiled call: where a kernel adds the nanoseconds that its softmax took, with the quantization of what comes
// out.
struct SoftmaxClock {
  uint64_t (*now)();  // nanoseconds
  uint64_t nanoseconds;
};

// Where one head of one sequence lies in the projected states. Rows are tokens; `stride` is the row stride in floats.
struct AttentionHead {
  const float* query;  // queries x head_size
  const float* key;    // tokens x head_size
  const float* value;
  size_t stride;
  float* context;  // queries x head_size, row stride context_stride
  size_t context_stride;
  size_t tokens;
  size_t head_size;
  size_t queries = tokens;  // 1..tokens: the first ones, where no other's context is wanted
  SoftmaxClock* clock = nullptr;
};

// Runs body() and adds its time to the clock, where there is one. Inlined: translation units differ in their flags.
template <class F>
[[gnu::always_inline]] inline void TimeSoftmax(SoftmaxClock* clock, F body) {
  const uint64_t start = clock == nullptr ? 0 : clock->now();
  body();
  if (clock != nullptr) clock->nanoseconds += clock->now() - start;
}

// Largest `tokens` and `head_size`: the sums of products of two 8-bit codes are int32.
constexpr size_t kMaxAttentionInputs = 33024;
static_assert(uint64_t{255} * 255 * kMaxAttentionInputs < uint64_t{1} << 31, "int32 holds every sum of products");

// The four activation points of the attention products.
struct AttentionSpecs {
  QuantizeSpec query, key, probabilities, value;
};

// Bytes of scratch that one call needs, for the longest sequence it will see; 64-byte aligned.
size_t AttentionScratchBytes(size_t tokens, size_t head_size);

using AttentionUint8Fn = void (*)(const AttentionHead& head, const AttentionSpecs& specs, void* scratch);
using AttentionFloatFn = void (*)(const AttentionHead& head, void* scratch);

namespace reference {
void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch);
void AttentionFloat(const AttentionHead& head, void* scratch);
}  // namespace reference
namespace avx2 {
void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch);
void AttentionFloat(const AttentionHead& head, void* scratch);
}  // namespace avx2
namespace avx512vnni {
void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch);
void AttentionFloat(const AttentionHead& head, void* scratch);
}  // namespace avx512vnni
namespace avxvnni {
void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch);
}
namespace neondot {
void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch);
void AttentionFloat(const AttentionHead& head, void* scratch);
}  // namespace neondot
}  // namespace bitpress
