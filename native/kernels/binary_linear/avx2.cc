// For each panel of 64 outputs and block of inputs, the packed nibbles are unpacked once to L1, then swept over all
// pairs of rows (simd/avx2_bit_counts.h); one or two rows take them as they are packed.
#include "kernels/simd/avx2_bit_counts.h"

namespace bitpress::avx2 {
namespace {

// The unpacked block takes 16 KB of a 32 KB L1, next to the tables (4 KB) and the counts (8 KB).
struct alignas(64) Workspace {
  uint8_t panel[kDepthTriples * kTripleGroups * kUnpackedGroup];
  PairCounts counts[kBitRowBlock / 2];
  int base[kBitRowBlock];
};

void UnpackPanel(const uint8_t* packed, size_t groups, uint8_t* panel) {
  for (size_t g = 0; g < groups; ++g) {
    const Nibbles nibbles = PackedPanel{packed}.Load(g);
    StoreInt(panel + g * kUnpackedGroup, {nibbles.half[0]});
    StoreInt(panel + g * kUnpackedGroup + 32, {nibbles.half[1]});
  }
}

size_t CountOnes(const uint8_t* row, size_t bytes) {
  size_t ones = 0, i = 0;
  for (; i + 8 <= bytes; i += 8) {
    uint64_t word;
    __builtin_memcpy(&word, row + i, 8);
    ones += static_cast<size_t>(__builtin_popcountll(word));
  }
  for (; i < bytes; ++i) ones += static_cast<size_t>(__builtin_popcount(row[i]));
  return ones;
}

// write(row, panel, dots) for every row and panel.
template <class Write>
[[gnu::always_inline]] inline void ForDots(const BinaryInput& x, const BinaryMatrix& w, size_t panel_begin,
                                           size_t panel_end, void* scratch, Write write) {
  Workspace work;
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
        const uint8_t* packed = w.packed.data() + p * w.panel_bytes + group * sizeof(BinaryGroup);
        const uint16_t* at = offsets + group;
        if (pairs == 1) {
          CountPairs<1>(at, 0, tables, PackedPanel{packed}, triples, t > 0, work.counts);
          continue;
        }
        UnpackPanel(packed, triples * kTripleGroups, work.panel);
        const UnpackedPanel panel{work.panel};
        size_t pair = 0;
        for (; pair + 2 <= pairs; pair += 2) {
          CountPairs<2>(at + pair * offset_stride, offset_stride, tables, panel, triples, t > 0, work.counts + pair);
        }
        if (pair < pairs) {
          CountPairs<1>(at + pair * offset_stride, 0, tables, panel, triples, t > 0, work.counts + pair);
        }
      }
      for (size_t r = 0; r < rows; ++r) {
        write(row_begin + r, p, DotsOf(work.counts[r / 2].rows[r % 2], work.base[r], StepOf(x.set)));
      }
    }
  }
}

}  // namespace

void BinaryLinearFloat(const BinaryInput& x, const BinaryMatrix& w, const BinaryAffine& affine, size_t panel_begin,
                       size_t panel_end, float* y, size_t ldy, void* scratch) {
  ForDots(x, w, panel_begin, panel_end, scratch, [&](size_t row, size_t panel, const PanelDots& dots) {
    for (size_t i = 0; i < kBitPanel / kFloats; ++i) {
      const size_t n = panel * kBitPanel + i * kFloats;
      if (n >= w.outputs) return;
      const __m256i sixteen = dots.at[i / 2];
      const __m128i eight = i % 2 == 0 ? _mm256_castsi256_si128(sixteen) : _mm256_extracti128_si256(sixteen, 1);
      const F32 dot = ToFloat({_mm256_cvtepi16_epi32(eight)});
      StoreFirst(y + row * ldy + n, w.outputs - n, Fma(dot, Load(&affine.scale[n]), Load(&affine.bias[n])));
    }
  });
}

void BinaryLinearBits(const BinaryInput& x, const BinaryMatrix& w, const BinaryThresholds& thresholds,
                      size_t panel_begin, size_t panel_end, uint8_t* y, size_t ldy, void* scratch) {
  ForDots(x, w, panel_begin, panel_end, scratch, [&](size_t row, size_t panel, const PanelDots& dots) {
    const uint64_t bits = PassedBits(dots, thresholds, panel);
    __builtin_memcpy(y + row * ldy + panel * (kBitPanel / 8), &bits, sizeof(bits));
  });
}

}  // namespace bitpress::avx2
