// Two rows at a time through each panel of 64 outputs, as it is packed (simd/neon_bit_counts.h).
#include "kernels/simd/neon_bit_counts.h"

namespace bitpress::neondot {
namespace {

// write(row, panel, dots) for every row and panel.
template <class Write>
void ForDots(const BinaryInput& x, const BinaryMatrix& w, size_t panel_begin, size_t panel_end, void* scratch,
             Write write) {
  auto* offsets = static_cast<uint16_t*>(scratch);
  const size_t bytes = BitRowBytes(w.inputs), stride = OffsetStride(w.triples);
  int base[kBitRowBlock];
  for (size_t row_begin = 0; row_begin < x.rows; row_begin += kBitRowBlock) {
    const size_t rows = x.rows - row_begin < kBitRowBlock ? x.rows - row_begin : kBitRowBlock;
    for (size_t r = 0; r < rows; r += 2) {
      const uint8_t* first = x.bits + (row_begin + r) * x.stride;
      const uint8_t* second = r + 1 < rows ? first + x.stride : first;  // an odd row is its own partner
      PairOffsets(first, second, bytes, w.triples * kTripleGroups, offsets + r / 2 * stride);
      base[r] = BaseOf(x.set, w.inputs, CountOnes(first, bytes));
      base[r + 1] = BaseOf(x.set, w.inputs, CountOnes(second, bytes));
    }
    for (size_t p = panel_begin; p < panel_end; ++p) {
      for (size_t r = 0; r < rows; r += 2) {
        Counts counts[2];
        CountPair(w.packed.get() + p * w.panel_bytes, offsets + r / 2 * stride, TablesFor(x.set), w.triples, counts);
        for (size_t i = 0; i < 2 && r + i < rows; ++i) {
          write(row_begin + r + i, p, DotsOf(counts[i], base[r + i], StepOf(x.set)));
        }
      }
    }
  }
}

}  // namespace

void BinaryLinearFloat(const BinaryInput& x, const BinaryMatrix& w, const BinaryAffine& affine, size_t panel_begin,
                       size_t panel_end, float* y, size_t ldy, void* scratch) {
  ForDots(x, w, panel_begin, panel_end, scratch, [&](size_t row, size_t panel, const PanelDots& dots) {
    for (size_t i = 0; i < kBitPanel / kLanes; ++i) {
      const size_t n = panel * kBitPanel + i * kLanes;
      if (n >= w.outputs) return;
      const F32x16 dot = ToFloat(Widen(dots.at[2 * i], dots.at[2 * i + 1]));
      StoreFirst(y + row * ldy + n, w.outputs - n, Fma(dot, Load(&affine.scale[n]), Load(&affine.bias[n])));
    }
  });
}

void BinaryLinearBits(const BinaryInput& x, const BinaryMatrix& w, const BinaryThresholds& thresholds,
                      size_t panel_begin, size_t panel_end, uint8_t* y, size_t ldy, void* scratch) {
  ForDots(x, w, panel_begin, panel_end, scratch, [&](size_t row, size_t panel, const PanelDots& dots) {
    uint8_t* bits = y + row * ldy + panel * (kBitPanel / 8);
    for (size_t i = 0; i < kBitPanel / 8; ++i) {
      const size_t n = panel * kBitPanel + i * 8;
      bits[i] = PassedBits(dots.at[i], &thresholds.above[n], &thresholds.flip[n]);
    }
  });
}

}  // namespace bitpress::neondot
