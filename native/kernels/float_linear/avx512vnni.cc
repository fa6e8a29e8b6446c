#include "kernels/simd/avx512vnni.h"

#include "kernels/float_linear/avx2_sweep.h"

namespace bitpress::avx512vnni {

void FloatLinear(const float* x, size_t ldx, size_t m, const FloatMatrix& w, size_t panel_begin, size_t panel_end,
                 float* y, size_t ldy) {
  avx2::SweepPanels<VnniTile>(x, ldx, m, w, panel_begin, panel_end, y, ldy);
}

}  // namespace bitpress::avx512vnni
