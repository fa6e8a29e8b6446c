#include "kernels/bit_attention/scratch.h"

#include <type_traits>

namespace bitpress {

BitAttentionBuffers LayOutBitAttention(void* scratch, size_t tokens, size_t head_size, size_t* bytes) {
  size_t used = 0;
  const auto take = [&](auto*& buffer, size_t count) {
    using Item = std::remove_reference_t<decltype(*buffer)>;
    buffer = scratch ? reinterpret_cast<Item*>(static_cast<unsigned char*>(scratch) + used) : nullptr;
    used += RoundUp(count * sizeof(Item), 64);
  };
  BitAttentionBuffers b{};
  b.head_triples = TriplesFor(head_size);
  b.token_triples = TriplesFor(tokens);
  b.head_panels = RoundUp(head_size, kBitPanel) / kBitPanel;
  b.token_panels = RoundUp(tokens, kBitPanel) / kBitPanel;
  // Whole offsets' worth of bits, so that no row has a tail.
  b.row_bytes = OffsetStride(b.head_triples) / 2;
  b.attended_row = OffsetStride(b.token_triples) / 2;
  const size_t group = kBitPanel * kTripleGroups;
  take(b.queries, RoundUp(tokens, kBitQueries) * b.row_bytes);
  take(b.keys, b.token_panels * kBitPanel * b.row_bytes);
  take(b.values, b.token_triples * kTripleGroups * kGroupInputs * b.row_bytes);
  take(b.attended, RoundUp(tokens, kBitQueries) * b.attended_row);
  take(b.key_panels, b.token_panels * b.head_triples * group);
  take(b.value_panels, b.head_panels * b.token_triples * group);
  take(b.query_offsets, kBitQueries / 2 * OffsetStride(b.head_triples));
  take(b.attended_offsets, kBitQueries / 2 * OffsetStride(b.token_triples));
  take(b.mismatches, kBitQueries * b.token_panels * kBitPanel);
  *bytes = used;
  return b;
}

size_t BitAttentionScratchBytes(size_t tokens, size_t head_size) {
  size_t bytes;
  LayOutBitAttention(nullptr, tokens, head_size, &bytes);
  return bytes;
}

}  // namespace bitpress
