#include "engine/binary_layers.h"

#include <algorithm>
#include <cstring>

namespace bitpress {

BinaryLayers::BinaryLayers(Arena& arena, const Model& model, const Extent& extent) {
  const size_t tokens = extent.tokens, hidden = model.config.hidden_size, attention = model.attention_size();
  const size_t head_size = model.head_size();
  const auto take_rows = [&](size_t stride) { return BitRows{arena.Take<uint8_t>(tokens * stride), stride}; };
  // Whole panels: that is what a binary linear layer writes.
  const auto take_panels = [&](size_t bits) { return take_rows(RoundUp(bits, kBitPanel) / 8); };
  projected_ = arena.Take<float>(tokens * hidden);
  for (size_t i = 0; i < 3; ++i) {
    hidden_bits_[i] = i == 0 || model.is_elastic() ? take_panels(hidden) : hidden_bits_[0];
  }
  query_ = take_panels(attention);
  key_ = take_panels(attention);
  value_ = take_panels(attention);
  context_ = take_rows(BitRowBytes(attention));
  heads_ = arena.Take<uint8_t>(tokens * model.config.num_heads * BitRowBytes(head_size));
  intermediate_ = take_panels(model.config.intermediate_size);
  size_t bytes = BitAttentionScratchBytes(extent.longest, head_size);
  const Layer& layer = model.layers[0];
  for (const Linear* linear : {&layer.query, &layer.attention_output, &layer.ffn_output}) {  // H, A and I inputs
    bytes = std::max(bytes, BinaryLinearScratchBytes(linear->binary.weights));
  }
  scratch_.stride = RoundUp(bytes, kAlignment);
  scratch_.bytes = arena.Take<uint8_t>(scratch_.stride * extent.threads);
}

void BinaryLayers::Attend(const Pass& pass, const Layer& layer) const {
  const size_t heads = pass.model.config.num_heads, head_size = pass.model.head_size();
  pass.team.ParallelFor(pass.group.sequences * heads, [&](size_t task, size_t thread) {
    Stopwatch watch(pass.profile, thread);
    const size_t sequence = task / heads, index = task % heads, first = pass.starts[sequence];
    const BitHead head = {query_.row(first), key_.row(first),   value_.row(first),
                          query_.stride,     index * head_size, pass.group.lengths[sequence],
                          head_size};
    const BitRows contexts = HeadRows(pass, index);
    pass.kernels.bit_attention_bits(head, layer.attended, layer.context_thresholds[index], contexts.row(first),
                                    contexts.stride, scratch_.of(thread));
    watch.Lap(BP_OP_ATTENTION);
  });
}

void BinaryLayers::AttendFirst(const Pass& pass, const Layer& layer) const {
  Attend(pass, layer);
  for (size_t index = 0; index < pass.model.config.num_heads; ++index) {
    const BitRows contexts = HeadRows(pass, index);
    GatherFirstTokens(pass, contexts.bits, contexts.stride);
  }
}

BitRows BinaryLayers::HeadRows(const Pass& pass, size_t index) const {
  const size_t head_bytes = BitRowBytes(pass.model.head_size());
  return {heads_ + index * pass.group.tokens * head_bytes, head_bytes};
}

void BinaryLayers::JoinHeads(const Pass& pass, size_t begin, size_t end, Stopwatch& watch) const {
  const size_t heads = pass.model.config.num_heads, head_size = pass.model.head_size();
  const size_t head_bytes = BitRowBytes(head_size);
  for (size_t row = begin; row < end; ++row) {
    uint8_t* to = context_.row(row);
    // The last byte of a head may have fewer bits, and zeros above them.
    unsigned pending = 0;
    size_t bits = 0;  // of pending, fewer than 8
    for (size_t index = 0; index < heads; ++index) {
      const uint8_t* from = HeadRows(pass, index).row(row);
      if (head_size == 64) {
        std::memcpy(to + index * 8, from, 8);
        continue;
      }
      for (size_t i = 0; i < head_bytes; ++i) {
        pending |= static_cast<unsigned>(from[i]) << bits;
        bits += i + 1 == head_bytes ? head_size - (head_bytes - 1) * 8 : 8;
        if (bits < 8) continue;
        *to++ = static_cast<uint8_t>(pending);
        pending >>= 8;
        bits -= 8;
      }
    }
    if (bits > 0) *to = static_cast<uint8_t>(pending);
  }
  watch.Lap(BP_OP_ATTENTION);
}

}  // namespace bitpress
