// Eight codes of 1, 2, 3, 4 or 8 bits, or one byte of trits, to a register of floats.
#include "kernels/simd/avx2.h"

#include "kernels/embedding/embedding.h"

namespace bitpress::avx2 {
namespace {

// Eight 2-bit codes, the first in the lowest bits.
F32 DecodeTwoBits(uint32_t codes, F32 scale) {
  const __m256i shifts = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
  const __m256i at_bottom = _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(codes)), shifts);
  // The code to the top and back down, which extends its sign.
  const I32 code = {_mm256_srai_epi32(_mm256_slli_epi32(at_bottom, 30), 30)};
  return scale * ToFloat(code);
}

// The five codes of every byte, as signed bytes; three more are zero.
struct TritTable {
  alignas(8) int8_t codes[256][8];
};
constexpr TritTable MakeTritTable() {
  TritTable table{};
  for (int byte = 0; byte < 256; ++byte) {
    for (int j = 0, rest = byte; j < 5; ++j, rest /= 3) {
      table.codes[byte][j] = static_cast<int8_t>(rest % 3 == 2 ? -1 : rest % 3);
    }
  }
  return table;
}
constexpr TritTable kTrits = MakeTritTable();

F32 DecodeTrits(uint8_t byte, F32 scale) {
  const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kTrits.codes[byte]));
  return scale * ToFloat({_mm256_cvtepi8_epi32(codes)});
}

// Eight neighbouring codes of 2, 3, 4 or 8 bits to a lane each.
class Fields {
 public:
  explicit Fields(unsigned bits)
      : bits_(bits),
        mask_(_mm256_set1_epi32((1 << bits) - 1)),
        // Fewer than 8 bits: eight codes lie within 32 bits.
        shifts_(_mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(bits & 7))) {}

  // The first `count` of them, 1 to 8; no byte beyond them is read.
  I32 Load(const uint8_t* codes, size_t count) const {
    int64_t packed = 0;  // eight codes are `bits` bytes
    __builtin_memcpy(&packed, codes, (count * bits_ + 7) / 8);
    const __m128i bytes = _mm_cvtsi64_si128(packed);
    if (bits_ == 8) return {_mm256_cvtepu8_epi32(bytes)};
    return {_mm256_and_si256(_mm256_srlv_epi32(_mm256_broadcastd_epi32(bytes), shifts_), mask_)};
  }

 private:
  unsigned bits_;
  __m256i mask_, shifts_;
};

// scale where a bit is 1, else its opposite.
F32 DecodeSigns(uint8_t bits, F32 scale) {
  // Bit j of a byte at the top of lane j, where it is the sign of the opposite.
  const __m256i shifts = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
  const __m256i top = _mm256_sllv_epi32(_mm256_set1_epi32(bits), shifts);
  const __m256i opposite = _mm256_andnot_si256(top, _mm256_set1_epi32(INT32_MIN));
  return {_mm256_xor_ps(scale.v, _mm256_castsi256_ps(opposite))};
}

}  // namespace

void DecodeTwoBitRow(const uint8_t* codes, size_t cols, float scale, float* y) {
  const F32 s = F32::Broadcast(scale);
  size_t j = 0;
  for (; j + 8 <= cols; j += 8) Store(y + j, DecodeTwoBits(codes[j / 4] | codes[j / 4 + 1] << 8, s));
  if (j < cols) {
    const uint32_t second = cols - j > 4 ? codes[j / 4 + 1] : 0;
    StoreMasked(y + j, TailMask(cols - j), DecodeTwoBits(codes[j / 4] | second << 8, s));
  }
}

void DecodeTritsRow(const uint8_t* codes, size_t cols, float scale, float* y) {
  const F32 s = F32::Broadcast(scale);
  size_t j = 0;
  // A full store writes 5 floats and 3 zeros, which the next one overwrites.
  for (; j + 8 <= cols; j += 5) Store(y + j, DecodeTrits(codes[j / 5], s));
  for (; j < cols; j += 5) {
    const size_t count = cols - j < 5 ? cols - j : 5;
    StoreMasked(y + j, TailMask(count), DecodeTrits(codes[j / 5], s));
  }
}

void DecodeUniformRow(const uint8_t* codes, size_t cols, unsigned bits, int zero, float scale, float offset, float* y) {
  const F32 s = F32::Broadcast(scale), o = F32::Broadcast(offset);
  const I32 zeros = {_mm256_set1_epi32(zero)};
  const Fields fields(bits);
  for (size_t j = 0; j < cols; j += kFloats, codes += bits) {
    const size_t count = cols - j < kFloats ? cols - j : kFloats;
    StoreFirst(y + j, count, s * ToFloat(fields.Load(codes, count) - zeros) + o);
  }
}

void DecodeCodebookRow(const uint8_t* codes, size_t cols, unsigned bits, const float (&values)[16], float* y) {
  const F32 low = Load(values), high = Load(values + 8);
  const Fields fields(bits);
  for (size_t j = 0; j < cols; j += kFloats, codes += bits) {
    const size_t count = cols - j < kFloats ? cols - j : kFloats;
    const __m256i code = fields.Load(codes, count).v;
    // The permutation reads the low three bits; the fourth, moved to the sign, chooses between both halves.
    const I32 is_high = {_mm256_slli_epi32(code, 28)};
    const F32 from_low = {_mm256_permutevar8x32_ps(low.v, code)}, from_high = {_mm256_permutevar8x32_ps(high.v, code)};
    StoreFirst(y + j, count, SelectMask(is_high, from_high, from_low));
  }
}

void DecodeBinaryRow(const uint8_t* codes, size_t cols, float scale, float* y) {
  const F32 s = F32::Broadcast(scale);
  for (size_t j = 0; j < cols; j += kFloats) {
    StoreFirst(y + j, cols - j < kFloats ? cols - j : kFloats, DecodeSigns(codes[j / 8], s));
  }
}

void DecodeTwoTermsRow(const uint8_t* const (&codes)[2], size_t cols, const float (&scales)[2], float* y) {
  const F32 first = F32::Broadcast(scales[0]), second = F32::Broadcast(scales[1]);
  for (size_t j = 0; j < cols; j += kFloats) {
    const F32 sum = DecodeSigns(codes[0][j / 8], first) + DecodeSigns(codes[1][j / 8], second);
    StoreFirst(y + j, cols - j < kFloats ? cols - j : kFloats, sum);
  }
}

void AddRows(const float* type, const float* position, size_t cols, float* y) {
  size_t j = 0;
  for (; j + kFloats <= cols; j += kFloats) Store(y + j, (Load(y + j) + Load(type + j)) + Load(position + j));
  if (j < cols) {
    const I32 mask = TailMask(cols - j);
    const F32 sum = (LoadMasked(y + j, mask) + LoadMasked(type + j, mask)) + LoadMasked(position + j, mask);
    StoreMasked(y + j, mask, sum);
  }
}

}  // namespace bitpress::avx2
