// 16 outputs a register, 32 inputs a lane: a xor (or and), a count of bits and an addition are 512 products, and the
// sums of a lane are the output's. Nothing is unpacked, looked up or summed across lanes.
//
// Floor: these three at four a cycle, of which two may count bits: 683 products a cycle (Zen 5). The look-up of
// simd/avx512_bit_counts.h has eight for 1,536 products, but loads a table for every one of its shuffles.
//
// [Carry-save adders before the counts (Harley-Seal): one saves a count and an addition and takes two ternary
//  operations: no fewer in all.]
#include "kernels/binary_linear/count_ones.h"
#include "kernels/binary_linear/layout.h"
#include "kernels/simd/avx2.h"
#include "kernels/simd/avx512.h"

namespace bitpress::avx512vpopcntdq {
namespace {

using avx512vnni::F32;
using avx512vnni::I32;

constexpr size_t kRegisters = kBitPanel / F32::kCount;  // of a word of inputs or of int32, for the outputs of a panel
// Rows that share the loads of the weights: 16 sums, 4 weights, an activation and what is on its way to the sums.
constexpr int kRows = 4;

// Of a row and the outputs of a panel, in order.
struct PanelDots {
  __m512i at[kRegisters];
};

// Rows of bits in whole words.
struct WordRows {
  const uint8_t* bits;
  size_t stride;
};

// Bits in which word k differs from the weights, or ones in common, of R rows.
//
// int32: a count is at most kMaxBinaryInputs.
template <BitSet kSet, int R>
[[gnu::always_inline]] inline void Count(const uint8_t* row, size_t stride, const uint8_t* panel, size_t words,
                                         PanelDots (&counts)[R]) {
  __m512i sums[R][kRegisters];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    for (__m512i& sum : sums[r]) sum = _mm512_setzero_si512();
  }
  for (size_t k = 0; k < words; ++k) {
    __m512i weights[kRegisters];
    for (size_t i = 0; i < kRegisters; ++i) {
      weights[i] = _mm512_loadu_si512(panel + k * sizeof(BinaryWords) + i * sizeof(__m512i));
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      int32_t word;
      __builtin_memcpy(&word, row + static_cast<size_t>(r) * stride + k * sizeof(word), sizeof(word));
      const __m512i x = _mm512_set1_epi32(word);
      for (size_t i = 0; i < kRegisters; ++i) {
        const __m512i bits = kSet == BitSet::kSigns ? _mm512_xor_si512(weights[i], x) : _mm512_and_si512(weights[i], x);
        sums[r][i] = _mm512_add_epi32(sums[r][i], _mm512_popcnt_epi32(bits));
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    for (size_t i = 0; i < kRegisters; ++i) counts[r].at[i] = sums[r][i];
  }
}

// The rows as they are where they end with a word, else copied to scratch and padded with zeros.
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
[[gnu::always_inline]] inline void ForDotsOf(const BinaryInput& x, const BinaryMatrix& w, size_t panel_begin,
                                             size_t panel_end, void* scratch, const Writer& writer) {
  const size_t words = WordsFor(w.inputs);
  __m512i base[kBitRowBlock];
  for (size_t row_begin = 0; row_begin < x.rows; row_begin += kBitRowBlock) {
    const size_t rows = x.rows - row_begin < kBitRowBlock ? x.rows - row_begin : kBitRowBlock;
    const WordRows input = WholeWords(x, row_begin, rows, w.inputs, scratch);
    for (size_t r = 0; r < rows; ++r) {
      const size_t ones = kSet == BitSet::kSigns ? 0 : CountOnes(input.bits + r * input.stride, BitRowBytes(w.inputs));
      base[r] = _mm512_set1_epi32(BaseOf(kSet, w.inputs, ones));
    }
    for (size_t p = panel_begin; p < panel_end; ++p) {
      const uint8_t* panel = w.packed.get() + p * w.panel_bytes;
      const auto write = writer(p);
      avx2::ForTiles<kRows>(rows, [&](size_t first, auto count) {
        constexpr int kCount = decltype(count)::value;
        PanelDots dots[kCount];
        Count<kSet, kCount>(input.bits + first * input.stride, input.stride, panel, words, dots);
        for (size_t r = 0; r < kCount; ++r) {
          for (__m512i& dot : dots[r].at) {
            const __m512i twice = _mm512_add_epi32(dot, dot);
            static_assert(kSignStep == -2 && kZeroOneStep == 2, "twice the count");
            dot = kSet == BitSet::kSigns ? _mm512_sub_epi32(base[first + r], twice)
                                         : _mm512_add_epi32(base[first + r], twice);
          }
          write(row_begin + first + r, dots[r]);
        }
      });
    }
  }
}

template <class Writer>
void ForDots(const BinaryInput& x, const BinaryMatrix& w, size_t panel_begin, size_t panel_end, void* scratch,
             const Writer& writer) {
  if (x.set == BitSet::kSigns) {
    ForDotsOf<BitSet::kSigns>(x, w, panel_begin, panel_end, scratch, writer);
  } else {
    ForDotsOf<BitSet::kZeroOne>(x, w, panel_begin, panel_end, scratch, writer);
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
    PanelDots above;
    uint64_t flip = 0;
    for (size_t i = 0; i < kRegisters; ++i) {
      const size_t n = panel * kBitPanel + i * F32::kCount;
      const auto load = [](const int16_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); };
      above.at[i] = _mm512_cvtepi16_epi32(load(&thresholds.above[n]));
      flip |= uint64_t{_mm256_movepi16_mask(load(&thresholds.flip[n]))} << (i * F32::kCount);
    }
    return [=](size_t row, const PanelDots& dots) {
      uint64_t bits = flip;
      for (size_t i = 0; i < kRegisters; ++i) {
        bits ^= uint64_t{_mm512_cmpgt_epi32_mask(dots.at[i], above.at[i])} << (i * F32::kCount);
      }
      __builtin_memcpy(y + row * ldy + panel * (kBitPanel / 8), &bits, sizeof(bits));
    };
  });
}

}  // namespace bitpress::avx512vpopcntdq
