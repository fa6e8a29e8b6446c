// For each panel of 64 outputs and block of inputs, the packed nibbles are unpacked once to L1, then swept over all
// pairs of rows; one or two rows take them as they are packed. What all x86 kernels of binary_linear share; how bits
// are counted is their own.
#pragma once

#include "kernels/binary_linear/count_ones.h"
#include "kernels/simd/avx2_bit_counts.h"

namespace bitpress::avx2 {
namespace {

// The unpacked block takes 16 KB of a 32 KB L1, next to the tables (4 KB) and the counts (8 KB).
template <class Bits>
struct alignas(64) Workspace {
  uint8_t panel[kDepthTriples * kTripleGroups * kUnpackedGroup];
  typename Bits::Counts counts[kBitRowBlock / 2];
  int base[kBitRowBlock];
};

// Bits: Avx2Bits, or another with its members.
// write(row, panel, dots) is called for every row and panel.
template <class Bits, class Write>
[[gnu::always_inline]] inline void ForDots(const BinaryInput& x, const BinaryMatrix& w, size_t panel_begin,
                                           size_t panel_end, void* scratch, Write write) {
  Workspace<Bits> work;
  auto* offsets = static_cast<uint16_t*>(scratch);
  const PairTables& tables = TablesFor(x.set);
  const size_t bytes = BitRowBytes(w.inputs), offset_stride = OffsetStride(w.triples);
  const size_t depth_blocks = (w.triples + kDepthTriples - 1) / kDepthTriples;
  const size_t depth = (w.triples + depth_blocks - 1) / depth_blocks;
  for (size_t row_begin = 0; row_begin < x.rows; row_begin += kBitRowBlock) {
    const size_t rows = x.rows - row_begin < kBitRowBlock ? x.rows - row_begin : kBitRowBlock;
    const size_t pairs = (rows + 1) / 2;
    for (size_t r = 0; r < rows; r += 2) {
      const uint8_t* first = x.bits + (row_begin + r) * x.stride;
      const uint8_t* second = r + 1 < rows ? first + x.stride : first;  // an odd row is its own partner
      PairOffsets(first, second, bytes, offset_stride, offsets + r / 2 * offset_stride);
      work.base[r] = BaseOf(x.set, w.inputs, CountOnes(first, bytes));
      work.base[r + 1] = BaseOf(x.set, w.inputs, CountOnes(second, bytes));
    }
    for (size_t p = panel_begin; p < panel_end; ++p) {
      for (size_t t = 0; t < w.triples; t += depth) {
        const size_t triples = w.triples - t < depth ? w.triples - t : depth, group = t * kTripleGroups;
        const uint8_t* packed = w.packed.get() + p * w.panel_bytes + group * sizeof(BinaryGroup);
        const uint16_t* at = offsets + group;
        if (pairs == 1) {
          Bits::CountPacked(at, tables, packed, triples, t > 0, work.counts);
          continue;
        }
        Bits::UnpackPanel(packed, triples * kTripleGroups, work.panel);
        ForTiles<Bits::kPairs>(pairs, [&](size_t pair, auto count) {
          Bits::template CountPairs<decltype(count)::value>(at + pair * offset_stride, offset_stride, tables,
                                                            work.panel, triples, t > 0, work.counts + pair);
        });
      }
      for (size_t r = 0; r < rows; ++r) {
        write(row_begin + r, p, Bits::DotsOf(work.counts[r / 2], r % 2, work.base[r], StepOf(x.set)));
      }
    }
  }
}

}  // namespace
}  // namespace bitpress::avx2
