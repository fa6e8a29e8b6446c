// AVX-512 VNNI: `vpdpbusd` on 512-bit registers, a panel of 16 outputs in each.
#include "kernels/simd/avx512vnni.h"

#include "kernels/integer_linear/vnni_products.h"

namespace bitpress::avx512vnni {

void IntegerLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
  avx2::SweepPanels<avx2::VnniProducts<VnniTile>>(a, lda, a_scale, a_offset, m, w, panel_begin, panel_end, y, ldy);
}

}  // namespace bitpress::avx512vnni
