#include "kernels/bit_attention/avx2_attend.h"

namespace bitpress::avx2 {

void BitAttention(const BitHead& head, const AttendedKeys& keys, int16_t* context, size_t context_stride,
                  void* scratch) {
  Attend<Avx2Bits>(head, keys, context, context_stride, scratch);
}

void BitAttentionBits(const BitHead& head, const AttendedKeys& keys, const BinaryThresholds& thresholds, uint8_t* bits,
                      size_t bits_stride, void* scratch) {
  AttendToBits<Avx2Bits>(head, keys, thresholds, bits, bits_stride, scratch);
}

}  // namespace bitpress::avx2
