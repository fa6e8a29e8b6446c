// Products by `vpdpbusd`: four unsigned codes times four signed bytes, added up in int32 at once, exactly. So one
// kernel serves every panel, whatever its weights (IntegerMatrix::int16_steps is for `vpmaddubsw`). For files of ISAs
// with it.
#pragma once

#include "kernels/integer_linear/avx2_sweep.h"

namespace bitpress::avx2 {
namespace {

// Tile: VnniTile of simd/avxvnni.h or simd/avx512vnni.h.
template <class Tile>
class VnniProducts {
 public:
  static constexpr int kRows = Tile::kRows;
  static size_t DepthBlock(size_t) { return kDepthBlock; }

  void SetPanel(const int8_t* bytes, size_t steps, size_t) {
    panel_ = bytes;
    steps_ = steps;
  }
  template <int R>
  void Multiply(const uint8_t* a, size_t lda, const TileSums& to) {
    SumSteps<R>(steps_, steps_, to, [&](size_t step, size_t count, auto& tile) {
      Tile::MultiplyBytes(a + step * kStepInputs, lda, panel_ + step * kStepBytes, count, tile);
    });
  }

 private:
  const int8_t* panel_;
  size_t steps_;
};

}  // namespace
}  // namespace bitpress::avx2
