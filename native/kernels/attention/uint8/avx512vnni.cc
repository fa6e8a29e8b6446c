// Products by `vpdpwssd` on 512-bit registers: one instruction for two products and two additions of AVX2.
#include "kernels/simd/avx512vnni.h"

#include "kernels/attention/uint8/avx2_attend.h"
#include "kernels/simd/avx512.h"

namespace bitpress::avx512vnni {
namespace {

avx2::I32 PairsOf(I32 codes) {
  return avx2::PairOf({_mm512_castsi512_si256(codes.v)}, {_mm512_extracti64x4_epi64(codes.v, 1)});
}

}  // namespace

void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch) {
  avx2::Attend<VnniTile, F32>(head, specs, scratch);
}

}  // namespace bitpress::avx512vnni
