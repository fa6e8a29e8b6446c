// Two passes over a row that stays in L1: its range, then 32 codes at a time.
#include "kernels/simd/avx2.h"

#include "kernels/quantize/codebook.h"
#include "kernels/quantize/quantize.h"

namespace bitpress::avx2 {
namespace {

// The clip as two bounds that no value passes; +-inf where there is none.
struct Clamp {
  F32 low, high;
  explicit Clamp(float clip) {
    const float bound = clip > 0.0f ? clip : __builtin_inff();
    low = F32::Broadcast(-bound);
    high = F32::Broadcast(bound);
  }
  F32 operator()(F32 x) const { return Min(Max(x, low), high); }
};

struct RangeSearch {
  F32 low = F32::Broadcast(__builtin_inff());
  F32 high = F32::Broadcast(-__builtin_inff());
  __m256 nan = _mm256_setzero_ps();

  void Row(const float* x, size_t cols) {
    size_t i = 0;
    for (; i + 2 * kFloats <= cols; i += 2 * kFloats) {
      Add(Load(x + i));
      Add(Load(x + i + kFloats));
    }
    for (; i < cols; i += kFloats) {
      // The first element again in the lanes past the end: it changes no minimum or maximum.
      const I32 mask = TailMask(cols - i);
      Add(SelectMask(mask, LoadMasked(x + i, mask), F32::Broadcast(x[0])));
    }
  }
  Range Result() const { return {ReduceMin(low), ReduceMax(high), _mm256_movemask_ps(nan) != 0}; }

 private:
  void Add(F32 x) {
    nan = _mm256_or_ps(nan, _mm256_cmp_ps(x.v, x.v, _CMP_UNORD_Q));
    low = Min(x, low);
    high = Max(x, high);
  }
};

class Coder {
 public:
  Coder(const Codebook& book, float clip)
      : clip_(clip),
        zero_(F32::Broadcast(book.zero)),
        scale_(F32::Broadcast(book.scale)),
        low_(F32::Broadcast(book.low)),
        high_(F32::Broadcast(book.high)),
        shift_{_mm256_set1_epi32(book.shift)} {}

  // Eight codes as int32. Max takes `low` for a NaN, so the conversion sees numbers in low..high only.
  I32 Codes(F32 x) const {
    const F32 quotient = (clip_(x) - zero_) / scale_;
    const F32 rounded = {_mm256_round_ps(quotient.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
    return I32{_mm256_cvtps_epi32(Min(Max(rounded, low_), high_).v)} + shift_;
  }

 private:
  Clamp clip_;
  F32 zero_, scale_, low_, high_;
  I32 shift_;
};

// 32 int32 in 0..255 to 32 bytes in order: the packs work within 128-bit lanes, the permutation undoes that.
I32 PackBytes(I32 a, I32 b, I32 c, I32 d) {
  const __m256i ab = _mm256_packs_epi32(a.v, b.v), cd = _mm256_packs_epi32(c.v, d.v);
  const __m256i lanes = _mm256_packus_epi16(ab, cd);
  return {_mm256_permutevar8x32_epi32(lanes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))};
}

int32_t SumBytes(I32 bytes) {
  const __m256i sums = _mm256_sad_epu8(bytes.v, _mm256_setzero_si256());
  const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  return _mm_cvtsi128_si32(two) + _mm_extract_epi32(two, 2);
}

void CodeRow(const float* x, size_t cols, float clip, const Codebook& book, uint8_t* codes, size_t ldc, int32_t* sum) {
  __builtin_memset(codes + cols, 0, ldc - cols);
  if (book.is_constant) {
    __builtin_memset(codes, book.constant, cols);
    if (sum) *sum = static_cast<int32_t>(cols) * book.constant;
    return;
  }
  const Coder coder(book, clip);
  int32_t total = 0;
  size_t i = 0;
  for (; i + 32 <= cols; i += 32) {
    const I32 bytes = PackBytes(coder.Codes(Load(x + i)), coder.Codes(Load(x + i + 8)), coder.Codes(Load(x + i + 16)),
                                coder.Codes(Load(x + i + 24)));
    StoreInt(codes + i, bytes);
    total += SumBytes(bytes);
  }
  for (; i < cols; i += kFloats) {
    const size_t count = cols - i < kFloats ? cols - i : kFloats;
    const I32 mask = TailMask(count);
    const I32 kept = {_mm256_and_si256(coder.Codes(LoadMasked(x + i, mask)).v, mask.v)};
    const I32 bytes = PackBytes(kept, {_mm256_setzero_si256()}, {_mm256_setzero_si256()}, {_mm256_setzero_si256()});
    uint8_t tail[32];
    StoreInt(tail, bytes);
    __builtin_memcpy(codes + i, tail, count);
    total += SumBytes(bytes);
  }
  if (sum) *sum = total;
}

}  // namespace

void QuantizeRows(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                  size_t ldc, float* scale, float* offset, int32_t* code_sum) {
  for (size_t row = 0; row < rows; ++row) {
    const float* xr = x + row * ldx;
    RangeSearch search;
    if (!spec.is_static) search.Row(xr, cols);
    const Codebook book = MakeCodebook(spec, search.Result());
    CodeRow(xr, cols, spec.clip, book, codes + row * ldc, ldc, code_sum ? code_sum + row : nullptr);
    scale[row] = book.scale;
    offset[row] = book.offset;
  }
}

void QuantizeBlock(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                   size_t ldc, float* scale, float* offset) {
  RangeSearch search;
  if (!spec.is_static) {
    for (size_t row = 0; row < rows; ++row) search.Row(x + row * ldx, cols);
  }
  const Codebook book = MakeCodebook(spec, search.Result());
  for (size_t row = 0; row < rows; ++row) {
    CodeRow(x + row * ldx, cols, spec.clip, book, codes + row * ldc, ldc, nullptr);
  }
  *scale = book.scale;
  *offset = book.offset;
}

}  // namespace bitpress::avx2
