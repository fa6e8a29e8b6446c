#include "kernels/bit_attention/avx2_attend.h"
#include "kernels/simd/avx512_bit_counts.h"

namespace bitpress::avx512vnni {

void BitAttention(const BitHead& head, const AttendedKeys& keys, int16_t* context, size_t context_stride,
                  void* scratch) {
  avx2::Attend<Avx512Bits>(head, keys, context, context_stride, scratch);
}

void BitAttentionBits(const BitHead& head, const AttendedKeys& keys, const BinaryThresholds& thresholds, uint8_t* bits,
                      size_t bits_stride, void* scratch) {
  avx2::AttendToBits<Avx512Bits>(head, keys, thresholds, bits, bits_stride, scratch);
}

}  // namespace bitpress::avx512vnni
