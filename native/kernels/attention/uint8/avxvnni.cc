// Products by `vpdpwssd`: one instruction for the product and the addition of AVX2.
#include "kernels/simd/avxvnni.h"

#include "kernels/attention/uint8/avx2_attend.h"

namespace bitpress::avxvnni {

void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch) {
  avx2::Attend<avx2::PairWords<VnniTile>, avx2::F32x2>(head, specs, scratch);
}

}  // namespace bitpress::avxvnni
