#include "kernels/bit_attention/scratch.h"

#include <algorithm>

namespace bitpress {
namespace {

// Hands out buffers one after another; NULL where scratch is, when they are only measured.
class Buffers {
 public:
  explicit Buffers(void* scratch) : scratch_(static_cast<unsigned char*>(scratch)) {}

  template <class Item>
  void Take(Item*& buffer, size_t count) {
    buffer = scratch_ ? reinterpret_cast<Item*>(scratch_ + used_) : nullptr;
    used_ += RoundUp(count * sizeof(Item), 64);
  }
  size_t used() const { return used_; }

 private:
  unsigned char* scratch_;
  size_t used_ = 0;
};

size_t PanelsOf(size_t bits) { return RoundUp(bits, kBitPanel) / kBitPanel; }

}  // namespace

BitAttentionBuffers LayOutBitAttention(void* scratch, size_t tokens, size_t head_size, size_t* bytes) {
  Buffers buffers(scratch);
  BitAttentionBuffers b{};
  b.head_triples = TriplesFor(head_size);
  b.token_triples = TriplesFor(tokens);
  b.head_panels = PanelsOf(head_size);
  b.token_panels = PanelsOf(tokens);
  // Whole offsets' worth of bits, so that no row has a tail.
  b.row_bytes = OffsetStride(b.head_triples) / 2;
  b.attended_row = OffsetStride(b.token_triples) / 2;
  const size_t group = kBitPanel * kTripleGroups;
  buffers.Take(b.queries, RoundUp(tokens, kBitQueries) * b.row_bytes);
  buffers.Take(b.keys, b.token_panels * kBitPanel * b.row_bytes);
  buffers.Take(b.values, b.token_triples * kTripleGroups * kGroupInputs * b.row_bytes);
  buffers.Take(b.attended, RoundUp(tokens, kBitQueries) * b.attended_row);
  buffers.Take(b.key_panels, b.token_panels * b.head_triples * group);
  buffers.Take(b.value_panels, b.head_panels * b.token_triples * group);
  buffers.Take(b.query_offsets, kBitQueries / 2 * OffsetStride(b.head_triples));
  buffers.Take(b.attended_offsets, kBitQueries / 2 * OffsetStride(b.token_triples));
  buffers.Take(b.mismatches, kBitQueries * b.token_panels * kBitPanel);
  *bytes = buffers.used();
  return b;
}

BitWordBuffers LayOutBitWords(void* scratch, size_t tokens, size_t* bytes) {
  Buffers buffers(scratch);
  BitWordBuffers b{};
  b.panels = PanelsOf(tokens);
  const size_t row = kMaxBitWordHeadSize / 8, panel = kBitPanel * row;
  buffers.Take(b.queries, RoundUp(tokens, kWordQueries) * row);
  buffers.Take(b.rows, b.panels * panel);
  buffers.Take(b.key_panels, b.panels * panel);
  buffers.Take(b.value_words, b.panels * 2 * sizeof(BinaryWords));
  buffers.Take(b.mismatches, kWordQueries * b.panels * kBitPanel);
  buffers.Take(b.attended, RoundUp(tokens, kWordQueries) * b.panels * kBitPanel / 8);
  *bytes = buffers.used();
  return b;
}

size_t BitAttentionScratchBytes(size_t tokens, size_t head_size) {
  size_t nibbles, words = 0;
  LayOutBitAttention(nullptr, tokens, head_size, &nibbles);
  if (head_size <= kMaxBitWordHeadSize) LayOutBitWords(nullptr, tokens, &words);
  return std::max(nibbles, words);
}

}  // namespace bitpress
