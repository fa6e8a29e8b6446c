// Two passes over a row that stays in L1: its range, then 32 codes at a time.
#include "kernels/quantize/all_rows.h"
#include "kernels/quantize/avx2_range.h"

namespace bitpress::avx2 {
namespace {

// 32 int32 in 0..255 to 32 bytes in order: the packs work within 128-bit lanes, the permutation undoes that.
I32 PackBytes(I32 a, I32 b, I32 c, I32 d) {
  const __m256i ab = _mm256_packs_epi32(a.v, b.v), cd = _mm256_packs_epi32(c.v, d.v);
  const __m256i lanes = _mm256_packus_epi16(ab, cd);
  return {_mm256_permutevar8x32_epi32(lanes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))};
}

// Four sums of eight bytes each, as int64 and so as int32 with zeros between.
I32 SumBytes(I32 bytes) { return {_mm256_sad_epu8(bytes.v, _mm256_setzero_si256())}; }

template <class C>
int32_t CodeRow(const C& coder, const float* x, size_t cols, uint8_t* codes) {
  I32 sums = {_mm256_setzero_si256()};
  size_t i = 0;
  for (; i + 32 <= cols; i += 32) {
    const I32 bytes = PackBytes(coder.Codes(Load(x + i)), coder.Codes(Load(x + i + 8)), coder.Codes(Load(x + i + 16)),
                                coder.Codes(Load(x + i + 24)));
    StoreInt(codes + i, bytes);
    sums = sums + SumBytes(bytes);
  }
  for (; i < cols; i += kFloats) {
    const size_t count = cols - i < kFloats ? cols - i : kFloats;
    const I32 mask = TailMask(count);
    const I32 kept = {_mm256_and_si256(coder.Codes(LoadMasked(x + i, mask)).v, mask.v)};
    const I32 bytes = PackBytes(kept, {_mm256_setzero_si256()}, {_mm256_setzero_si256()}, {_mm256_setzero_si256()});
    uint8_t tail[32];
    StoreInt(tail, bytes);
    __builtin_memcpy(codes + i, tail, count);
    sums = sums + SumBytes(bytes);
  }
  return SumInts(sums);
}

struct OneRow {
  using RangeSearch = avx2::RangeSearch;
  static int32_t CodeRow(const float* x, size_t cols, const QuantizeSpec& spec, const Codebook<F32>& book,
                         uint8_t* codes) {
    int32_t sum = 0;
    WithCoder(spec, book, [&](const auto& coder) { sum = avx2::CodeRow(coder, x, cols, codes); });
    return sum;
  }
};

}  // namespace

void QuantizeRows(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                  size_t ldc, float* scale, float* offset, int32_t* code_sum) {
  QuantizeAllRows<OneRow>(x, ldx, rows, cols, spec, codes, ldc, scale, offset, code_sum);
}

void QuantizeBlock(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                   size_t ldc, float* scale, float* offset) {
  QuantizeWholeBlock<OneRow>(x, ldx, rows, cols, spec, codes, ldc, scale, offset);
}

}  // namespace bitpress::avx2
