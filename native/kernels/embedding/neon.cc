// Sixteen codes of 1, 2, 3, 4 or 8 bits, or one byte of trits, to registers of floats.
#include "kernels/simd/neon.h"

#include "kernels/embedding/embedding.h"

namespace bitpress::neondot {
namespace {

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

// Where sixteen codes of a few bits lie in 2 * bits bytes: code j begins in byte first[j], `shift` bits up, and may go
// on in the next one.
struct Fields {
  uint8x16_t first, second, mask;
  int8x16_t down, up;  // shift counts, of the second byte 8 - shift upwards

  explicit Fields(unsigned bits) {
    uint8_t bytes[16];
    int8_t shifts[16];
    for (unsigned j = 0; j < 16; ++j) {
      bytes[j] = static_cast<uint8_t>(j * bits / 8);
      shifts[j] = static_cast<int8_t>(j * bits % 8);
    }
    first = vld1q_u8(bytes);
    second = vaddq_u8(first, vdupq_n_u8(1));
    mask = vdupq_n_u8(static_cast<uint8_t>((1u << bits) - 1));
    down = vnegq_s8(vld1q_s8(shifts));
    up = vaddq_s8(down, vdupq_n_s8(8));
  }
  // A look-up of byte 16 gives 0, and so does a shift by 8: both where code 15 ends with its byte.
  uint8x16_t Codes(uint8x16_t packed) const {
    const uint8x16_t low = vshlq_u8(vqtbl1q_u8(packed, first), down);
    const uint8x16_t high = vshlq_u8(vqtbl1q_u8(packed, second), up);
    return vandq_u8(vorrq_u8(low, high), mask);
  }
};

// write(index, count, sixteen codes) over a row.
template <class F>
void ForCodes(const uint8_t* row, size_t cols, unsigned bits, F write) {
  const Fields fields(bits);
  const size_t bytes = (cols * bits + 7) / 8;
  ForSixteens(cols, [&](size_t j, size_t count) {
    const size_t at = j / 8 * bits;
    write(j, count, fields.Codes(LoadFirstBytes(row + at, bytes - at)));
  });
}

// scale where a code is 1, its opposite where it is 0: 2 code - 1, and a product with +-1 is exact.
F32x16 Signs(uint8x16_t codes, F32x16 scale) {
  const int8x16_t sign = vsubq_s8(vreinterpretq_s8_u8(vaddq_u8(codes, codes)), vdupq_n_s8(1));
  return scale * ToFloat(Widen(sign));
}

}  // namespace

void DecodeTwoBitRow(const uint8_t* codes, size_t cols, float scale, float* y) {
  const F32x16 s = F32x16::Broadcast(scale);
  ForCodes(codes, cols, 2, [&](size_t j, size_t count, uint8x16_t fields) {
    // To the top and back down, which extends the sign.
    const int8x16_t code = vshrq_n_s8(vreinterpretq_s8_u8(vshlq_n_u8(fields, 6)), 6);
    StoreFirst(y + j, count, s * ToFloat(Widen(code)));
  });
}

void DecodeTritsRow(const uint8_t* codes, size_t cols, float scale, float* y) {
  const auto decode = [&](uint8_t byte, float* to) {
    const int16x8_t wide = vmovl_s8(vld1_s8(kTrits.codes[byte]));
    vst1q_f32(to, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), scale));
    vst1q_f32(to + 4, vmulq_n_f32(vcvtq_f32_s32(vmovl_high_s16(wide)), scale));
  };
  size_t j = 0;
  // A full store writes 5 floats and 3 zeros, which the next one overwrites.
  for (; j + 8 <= cols; j += 5) decode(codes[j / 5], y + j);
  for (; j < cols; j += 5) {
    float five[8];
    decode(codes[j / 5], five);
    __builtin_memcpy(y + j, five, (cols - j < 5 ? cols - j : 5) * sizeof(float));
  }
}

void DecodeUniformRow(const uint8_t* codes, size_t cols, unsigned bits, int zero, float scale, float offset, float* y) {
  const F32x16 s = F32x16::Broadcast(scale), o = F32x16::Broadcast(offset);
  const I32 z = {vdupq_n_s32(zero)};
  ForCodes(codes, cols, bits, [&](size_t j, size_t count, uint8x16_t fields) {
    StoreFirst(y + j, count, s * ToFloat(Widen(fields) - I32x16{z, z, z, z}) + o);
  });
}

void DecodeCodebookRow(const uint8_t* codes, size_t cols, unsigned bits, const float (&values)[16], float* y) {
  ForCodes(codes, cols, bits, [&](size_t j, size_t count, uint8x16_t fields) {
    uint8_t sixteen[16];
    vst1q_u8(sixteen, fields);
    for (size_t i = 0; i < count; ++i) y[j + i] = values[sixteen[i]];
  });
}

void DecodeBinaryRow(const uint8_t* codes, size_t cols, float scale, float* y) {
  const F32x16 s = F32x16::Broadcast(scale);
  ForCodes(codes, cols, 1,
           [&](size_t j, size_t count, uint8x16_t fields) { StoreFirst(y + j, count, Signs(fields, s)); });
}

void DecodeTwoTermsRow(const uint8_t* const (&codes)[2], size_t cols, const float (&scales)[2], float* y) {
  DecodeBinaryRow(codes[0], cols, scales[0], y);
  const F32x16 s = F32x16::Broadcast(scales[1]);
  ForCodes(codes[1], cols, 1, [&](size_t j, size_t count, uint8x16_t fields) {
    StoreFirst(y + j, count, LoadFirst(y + j, count) + Signs(fields, s));
  });
}

void AddRows(const float* type, const float* position, size_t cols, float* y) {
  ForSixteens(cols, [&](size_t j, size_t n) {
    StoreFirst(y + j, n, (LoadFirst(y + j, n) + LoadFirst(type + j, n)) + LoadFirst(position + j, n));
  });
}

}  // namespace bitpress::neondot
