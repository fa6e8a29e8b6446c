// Products by `vpdpbusd` on 512-bit registers: 64 an instruction, of codes 0..255 with codes minus 128.
#include "kernels/simd/avx512vnni.h"

#include "kernels/attention/uint8/avx2_attend.h"
#include "kernels/simd/avx512.h"

namespace bitpress::avx512vnni {
namespace {

// PairWords of four bytes. One factor is unsigned, the other signed: keys and values stand as codes minus 128, and what
// is missing then, 128 times the sum of a row's codes, is added to the sums.
struct ByteWords {
  static constexpr size_t kCodes = 4;
  static constexpr int kRows = VnniTile::kRows;

  static avx2::I32 Of(const avx2::I32 (&codes)[kCodes]) {
    const __m256i low = _mm256_or_si256(codes[0].v, _mm256_slli_epi32(codes[1].v, 8));
    const __m256i high = _mm256_or_si256(codes[2].v, _mm256_slli_epi32(codes[3].v, 8));
    return {_mm256_or_si256(low, _mm256_slli_epi32(high, 16))};
  }
  static avx2::I32 SignedOf(const avx2::I32 (&codes)[kCodes]) {
    return {_mm256_xor_si256(Of(codes).v, _mm256_set1_epi8(-128))};
  }
  static size_t TokenOf(size_t word, size_t i) { return word * kCodes + i; }
  static void StoreRow(int16_t* row, size_t j, I32 codes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(reinterpret_cast<uint8_t*>(row) + j), _mm512_cvtepi32_epi8(codes.v));
  }
  template <int R>
  [[gnu::always_inline]] static void Multiply(const int16_t* a, size_t lda, const float* panel, size_t words,
                                              avx2::Tile<avx2::I32, R>& tile) {
    VnniTile::MultiplyBytes(reinterpret_cast<const uint8_t*>(a), lda * sizeof(*a),
                            reinterpret_cast<const int8_t*>(panel), words, tile);
  }
  // code_sum is an integer below 2^24 (kMaxAttentionInputs codes of 255 are 8.4 million), so 128 times it fits an
  // int32, as the sums of 255 * 128 do; what NaN makes of it wraps around.
  template <class V>
  static V ToProducts(const void* sums, float code_sum) {
    const I32 missing = {_mm512_slli_epi32(ToInt(F32::Broadcast(code_sum)).v, 7)};
    return ToFloat(I32{_mm512_loadu_si512(sums)} + missing);
  }
};

}  // namespace

void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch) {
  avx2::Attend<ByteWords, F32>(head, specs, scratch);
}

}  // namespace bitpress::avx512vnni
