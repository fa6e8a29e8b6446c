#include "kernels/attention/scratch.h"

#include <algorithm>

namespace bitpress {
namespace {

class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<unsigned char*>(base)) {}
  template <class T>
  void Take(T*& buffer, size_t count) {
    buffer = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += RoundUp(count * sizeof(T), 64);
  }
  size_t used() const { return used_; }

 private:
  unsigned char* base_;
  size_t used_ = 0;
};

}  // namespace

AttentionBuffers LayOutAttention(void* scratch, size_t tokens, size_t head_size, size_t* bytes) {
  AttentionBuffers b{};
  b.code_stride = RoundUp(head_size, kCodePadding);
  b.probability_stride = RoundUp(tokens, kCodePadding);
  b.score_stride = RoundUp(tokens, kAttentionPanel);
  Arena arena(scratch);
  arena.Take(b.key_codes, tokens * b.code_stride);
  arena.Take(b.value_codes, tokens * b.code_stride);
  arena.Take(b.key_scale, b.score_stride);
  arena.Take(b.key_offset, b.score_stride);
  arena.Take(b.key_sum, b.score_stride);
  arena.Take(b.query_codes, kQueryRows * b.code_stride);
  arena.Take(b.query_scale, kQueryRows);
  arena.Take(b.query_offset, kQueryRows);
  arena.Take(b.query_sum, kQueryRows);
  arena.Take(b.scores, kQueryRows * b.score_stride);
  arena.Take(b.probability_codes, kQueryRows * b.probability_stride);
  arena.Take(b.wide, kQueryRows * std::max(b.code_stride, b.probability_stride));
  arena.Take(b.key_panels, b.score_stride * RoundUp(head_size, 8));
  arena.Take(b.value_panels, RoundUp(head_size, kAttentionPanel) * RoundUp(tokens, 2));
  *bytes = arena.used();
  return b;
}

size_t AttentionScratchBytes(size_t tokens, size_t head_size) {
  size_t bytes = 0;
  LayOutAttention(nullptr, tokens, head_size, &bytes);
  return bytes;
}

}  // namespace bitpress
