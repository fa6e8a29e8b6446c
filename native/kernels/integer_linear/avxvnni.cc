// AVX-VNNI: `vpdpbusd` on 256-bit registers, four unsigned codes times four signed bytes, added up in int32 at once,
// exactly. So one kernel serves every panel, whatever its weights (IntegerMatrix::int16_steps is for `vpmaddubsw`).
#include "kernels/simd/avxvnni.h"

#include "kernels/integer_linear/avx2_sweep.h"

namespace bitpress::avxvnni {
namespace {

class VnniProducts {
 public:
  static constexpr int kRows = VnniTile::kRows;
  static size_t DepthBlock(size_t) { return avx2::kDepthBlock; }

  void SetPanel(const int8_t* bytes, size_t steps, size_t) {
    panel_ = bytes;
    steps_ = steps;
  }
  template <int R>
  void Multiply(const uint8_t* a, size_t lda, const avx2::TileSums& to) {
    avx2::SumSteps<R>(steps_, steps_, to, [&](size_t step, size_t count, auto& tile) {
      VnniTile::MultiplyBytes(a + step * avx2::kStepInputs, lda, panel_ + step * avx2::kStepBytes, count, tile);
    });
  }

 private:
  const int8_t* panel_;
  size_t steps_;
};

}  // namespace

void IntegerLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
  avx2::SweepPanels<VnniProducts>(a, lda, a_scale, a_offset, m, w, panel_begin, panel_end, y, ldy);
}

}  // namespace bitpress::avxvnni
