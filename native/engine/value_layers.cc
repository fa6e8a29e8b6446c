#include "engine/value_layers.h"

#include <chrono>

namespace bitpress {
namespace {

uint64_t Nanoseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

}  // namespace

ValueLayers::ValueLayers(Arena& arena, const Model& model, const Extent& extent) {
  const size_t tokens = extent.tokens, hidden = model.config.hidden_size, attention = model.attention_size();
  query_ = arena.Take<float>(tokens * attention);
  key_ = arena.Take<float>(tokens * attention);
  value_ = arena.Take<float>(tokens * attention);
  context_ = arena.Take<float>(tokens * attention);
  // Never needed while the query states are. But where their rows differ in length, those of one thread's tokens in the
  // one would overlap those of another's in the other.
  projected_ = attention == hidden ? query_ : arena.Take<float>(tokens * hidden);
  intermediate_ = arena.Take<float>(tokens * model.config.intermediate_size);
  float* scale = arena.Take<float>(tokens);
  float* offset = arena.Take<float>(tokens);
  const auto take_codes = [&](size_t stride) {
    return QuantizedRows{arena.Take<uint8_t>(tokens * stride), stride, scale, offset};
  };
  hidden_codes_ = take_codes(model.hidden_code_stride);
  intermediate_codes_ = take_codes(model.intermediate_code_stride);
  attention_scratch_stride_ = RoundUp(AttentionScratchBytes(extent.longest, model.head_size()), kAlignment);
  attention_scratch_ = arena.Take<uint8_t>(attention_scratch_stride_ * extent.threads);
}

void ValueLayers::Attend(const Pass& pass, const Layer& layer, Queries queries) const {
  const size_t stride = pass.attention_size(), heads = pass.model.config.num_heads;
  const size_t head_size = pass.model.head_size();
  pass.team.ParallelFor(pass.group.sequences * heads, [&](size_t task, size_t thread) {
    Stopwatch watch(pass.profile, thread);
    const size_t sequence = task / heads, column = task % heads * head_size, tokens = pass.group.lengths[sequence];
    const bool all = queries == Queries::kAll;
    const size_t keys = pass.starts[sequence] * stride + column, row = all ? keys : sequence * stride + column;
    SoftmaxClock clock = {Nanoseconds, 0};
    const AttentionHead head = {
        query_ + row, key_ + keys, value_ + keys, stride,           context_ + row,
        stride,       tokens,      head_size,     all ? tokens : 1, watch.runs() ? &clock : nullptr};
    void* scratch = attention_scratch_ + thread * attention_scratch_stride_;
    if (pass.model.uint8_attention) {
      pass.kernels.attention_uint8(head, layer.attention, scratch);
    } else {
      pass.kernels.attention_float(head, scratch);
    }
    watch.Lap(BP_OP_ATTENTION, BP_OP_SOFTMAX, clock.nanoseconds);
  });
}

}  // namespace bitpress
