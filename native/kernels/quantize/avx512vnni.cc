// Two passes over a row that stays in L1: its range, then 64 codes at a time.
#include "kernels/quantize/all_rows.h"
#include "kernels/quantize/avx512_range.h"

namespace bitpress::avx512vnni {
namespace {

// 64 int32, clamped to 0..255, to 64 bytes in order: the packs work within 128-bit lanes, the permutation undoes that.
__m512i PackBytes(I32 a, I32 b, I32 c, I32 d) {
  const __m512i lanes = _mm512_packus_epi16(_mm512_packs_epi32(a.v, b.v), _mm512_packs_epi32(c.v, d.v));
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), lanes);
}

template <class C>
int32_t CodeRow(const C& coder, const float* x, size_t cols, uint8_t* codes) {
  __m512i sums = _mm512_setzero_si512();  // int64
  const auto add = [&](__m512i bytes) {
    sums = _mm512_add_epi64(sums, _mm512_sad_epu8(bytes, _mm512_setzero_si512()));
  };
  size_t i = 0;
  for (; i + 64 <= cols; i += 64) {
    const __m512i bytes = PackBytes(coder.Codes(F32::Load(x + i)), coder.Codes(F32::Load(x + i + 16)),
                                    coder.Codes(F32::Load(x + i + 32)), coder.Codes(F32::Load(x + i + 48)));
    _mm512_storeu_si512(codes + i, bytes);
    add(bytes);
  }
  const I32 none = I32::Broadcast(0);
  for (; i < cols; i += F32::kCount) {
    const __mmask16 mask = FirstLanes(cols - i);
    const I32 kept = {_mm512_maskz_mov_epi32(mask, coder.Codes(F32::LoadFirst(x + i, cols - i)).v)};
    const __m512i bytes = PackBytes(kept, none, none, none);
    _mm_mask_storeu_epi8(codes + i, mask, _mm512_castsi512_si128(bytes));
    add(bytes);
  }
  return static_cast<int32_t>(_mm512_reduce_add_epi64(sums));
}

struct OneRow {
  using RangeSearch = avx512vnni::RangeSearch;
  static int32_t CodeRow(const float* x, size_t cols, const QuantizeSpec& spec, const Codebook<F32>& book,
                         uint8_t* codes) {
    int32_t sum = 0;
    WithCoder(spec, book, [&](const auto& coder) { sum = avx512vnni::CodeRow(coder, x, cols, codes); });
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

}  // namespace bitpress::avx512vnni
