// For each panel of 64 outputs, all rows of a block, as they are where they end with a word.
#include "kernels/simd/avx512_word_counts.h"
#include "kernels/simd/weight_fetcher.h"

namespace bitpress::avx512vpopcntdq {
namespace {

// Fewer take a panel faster than the next one could be fetched: BERT-base with 3 tokens would take a fifth longer, and
// with 64 it takes 3 % less.
constexpr size_t kFewestRowsToFetch = 32;

struct WordRows {
  const uint8_t* bits;
  size_t stride;
};

// Rows in whole words: copied to scratch and padded with zeros where they are not.
WordRows WholeWords(const BinaryInput& x, size_t row_begin, size_t rows, size_t inputs, void* scratch) {
  const uint8_t* from = x.bits + row_begin * x.stride;
  const size_t bytes = BitRowBytes(inputs), padded = WordsFor(inputs) * sizeof(uint32_t);
  if (bytes == padded) return {from, x.stride};
  auto* to = static_cast<uint8_t*>(scratch);
  __builtin_memset(to, 0, rows * padded);
  for (size_t r = 0; r < rows; ++r) __builtin_memcpy(to + r * padded, from + r * x.stride, bytes);
  return {to, padded};
}

// writer(panel) gives write(row, dots), which is called for every row.
template <BitSet kSet, class Writer>
[[gnu::always_inline]] inline void ForPanels(const BinaryInput& x, const BinaryMatrix& w, size_t panel_begin,
                                             size_t panel_end, void* scratch, const Writer& writer) {
  const size_t words = WordsFor(w.inputs);
  int base[kBitRowBlock];
  for (size_t row_begin = 0; row_begin < x.rows; row_begin += kBitRowBlock) {
    const size_t rows = x.rows - row_begin < kBitRowBlock ? x.rows - row_begin : kBitRowBlock;
    const WordRows input = WholeWords(x, row_begin, rows, w.inputs, scratch);
    for (size_t r = 0; r < rows; ++r) {
      const uint8_t* row = input.bits + r * input.stride;
      const size_t ones = kSet == BitSet::kSigns ? 0 : CountOnes(row, words * sizeof(uint32_t));
      base[r] = BaseOf(kSet, w.inputs, ones);
    }
    for (size_t p = panel_begin; p < panel_end; ++p) {
      const uint8_t* panel = w.packed.get() + p * w.panel_bytes;
      const bool fetches = rows >= kFewestRowsToFetch && p + 1 < panel_end;
      Fetcher next(panel + w.panel_bytes, fetches ? w.panel_bytes : 0, rows);
      const auto write = writer(p);
      ForDotsOf<kSet>(
          input.bits, input.stride, rows, panel, words, [&](size_t r) { return base[r]; },
          [&](size_t r, const PanelDots& dots) {
            next.TakeTurn();
            write(row_begin + r, dots);
          });
    }
  }
}

template <class Writer>
void ForDots(const BinaryInput& x, const BinaryMatrix& w, size_t panel_begin, size_t panel_end, void* scratch,
             const Writer& writer) {
  if (x.set == BitSet::kSigns) {
    ForPanels<BitSet::kSigns>(x, w, panel_begin, panel_end, scratch, writer);
  } else {
    ForPanels<BitSet::kZeroOne>(x, w, panel_begin, panel_end, scratch, writer);
  }
}

}  // namespace

void BinaryLinearFloat(const BinaryInput& x, const BinaryMatrix& w, const BinaryAffine& affine, size_t panel_begin,
                       size_t panel_end, float* y, size_t ldy, void* scratch) {
  ForDots(x, w, panel_begin, panel_end, scratch, [&](size_t panel) {
    return [&, panel](size_t row, const PanelDots& dots) {
      for (size_t i = 0; i < kRegisters; ++i) {
        const size_t n = panel * kBitPanel + i * F32::kCount;
        if (n >= w.outputs) return;
        StoreFirst(y + row * ldy + n, w.outputs - n,
                   Fma(ToFloat(I32{dots.at[i]}), F32::Load(&affine.scale[n]), F32::Load(&affine.bias[n])));
      }
    };
  });
}

void BinaryLinearBits(const BinaryInput& x, const BinaryMatrix& w, const BinaryThresholds& thresholds,
                      size_t panel_begin, size_t panel_end, uint8_t* y, size_t ldy, void* scratch) {
  ForDots(x, w, panel_begin, panel_end, scratch, [&](size_t panel) {
    return [=, of_panel = PanelThresholds(thresholds, panel)](size_t row, const PanelDots& dots) {
      const uint64_t bits = of_panel.PassedBits(dots);
      __builtin_memcpy(y + row * ldy + panel * (kBitPanel / 8), &bits, sizeof(bits));
    };
  });
}

}  // namespace bitpress::avx512vpopcntdq
