// Two passes over a row that stays in L1: its range, then 32 codes at a time.
#include "kernels/quantize/avx2_range.h"
#include "kernels/quantize/quantize.h"

namespace bitpress::avx2 {
namespace {

void SearchRow(const float* x, size_t cols, RangeSearch& search) {
  size_t i = 0;
  for (; i + 2 * kFloats <= cols; i += 2 * kFloats) search.Add(Load(x + i), Load(x + i + kFloats));
  for (; i < cols; i += kFloats) {
    // The first element again in the lanes past the end: it changes no minimum or maximum.
    const I32 mask = TailMask(cols - i);
    search.Add(SelectMask(mask, LoadMasked(x + i, mask), F32::Broadcast(x[0])));
  }
}

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

// One row with its codebook in every lane.
int32_t CodeRow(const float* x, size_t cols, const QuantizeSpec& spec, const Codebook<F32>& book, uint8_t* codes,
                size_t ldc) {
  __builtin_memset(codes + cols, 0, ldc - cols);
  if (__builtin_isnan(FirstLane(book.scale))) {
    __builtin_memset(codes, 0, cols);
    return 0;
  }
  int32_t sum = 0;
  WithCoder(spec, book, [&](const auto& coder) { sum = CodeRow(coder, x, cols, codes); });
  return sum;
}

}  // namespace

void QuantizeRows(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                  size_t ldc, float* scale, float* offset, int32_t* code_sum) {
  for (size_t row = 0; row < rows; ++row) {
    const float* xr = x + row * ldx;
    RangeSearch search;
    if (!spec.is_static) SearchRow(xr, cols, search);
    const Codebook<F32> book = MakeCodebook(spec, search.Whole());
    const int32_t sum = CodeRow(xr, cols, spec, book, codes + row * ldc, ldc);
    if (code_sum) code_sum[row] = sum;
    scale[row] = FirstLane(book.scale);
    offset[row] = FirstLane(book.offset);
  }
}

void QuantizeBlock(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                   size_t ldc, float* scale, float* offset) {
  RangeSearch search;
  if (!spec.is_static) {
    for (size_t row = 0; row < rows; ++row) SearchRow(x + row * ldx, cols, search);
  }
  const Codebook<F32> book = MakeCodebook(spec, search.Whole());
  for (size_t row = 0; row < rows; ++row) {
    CodeRow(x + row * ldx, cols, spec, book, codes + row * ldc, ldc);
  }
  *scale = FirstLane(book.scale);
  *offset = FirstLane(book.offset);
}

}  // namespace bitpress::avx2
