#include "kernels/attention/scratch.h"

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
  b.code_stride = RoundUp(head_size, kAttentionPanel);
  b.score_stride = RoundUp(tokens, kAttentionPanel);
  Arena arena(scratch);
  arena.Take(b.query_scale, b.score_stride);
  arena.Take(b.query_offset, b.score_stride);
  arena.Take(b.query_sum, b.score_stride);
  arena.Take(b.key_scale, b.score_stride);
  arena.Take(b.key_offset, b.score_stride);
  arena.Take(b.key_constant, b.score_stride);
  arena.Take(b.query_codes, b.score_stride * b.code_stride);
  arena.Take(b.lanes, b.code_stride * kLaneRows);
  arena.Take(b.scores, kQueryRows * b.score_stride);
  arena.Take(b.probability_codes, kQueryRows * b.score_stride);
  arena.Take(b.key_panels, b.score_stride * b.code_stride);
  arena.Take(b.value_panels, b.score_stride * b.code_stride);
  *bytes = arena.used();
  return b;
}

size_t AttentionScratchBytes(size_t tokens, size_t head_size) {
  size_t bytes = 0;
  LayOutAttention(nullptr, tokens, head_size, &bytes);
  return bytes;
}

}  // namespace bitpress
