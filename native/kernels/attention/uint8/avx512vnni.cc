// Products by `vpdpwssd` on 512-bit registers: one instruction for two products and two additions of AVX2.
#include "kernels/simd/avx512vnni.h"

#include "kernels/attention/uint8/avx2_attend.h"

namespace bitpress::avx512vnni {

void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch) {
  avx2::Attend<VnniTile>(head, specs, scratch);
}

}  // namespace bitpress::avx512vnni
