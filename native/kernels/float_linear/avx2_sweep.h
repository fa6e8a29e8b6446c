// One panel of 16 outputs after another, all rows through it in tiles.
#pragma once

#include "kernels/float_linear/float_linear.h"
#include "kernels/simd/avx2_tiles.h"

namespace bitpress::avx2 {
namespace {

static_assert(kFloatPanelColumns == kTileColumns, "a panel is one tile wide");

template <class Products>
void SweepPanels(const float* x, size_t ldx, size_t m, const FloatMatrix& w, size_t panel_begin, size_t panel_end,
                 float* y, size_t ldy) {
  for (size_t p = panel_begin; p < panel_end; ++p) {
    const float* panel = w.packed.data() + p * w.inputs * kTileColumns;
    const size_t column = p * kTileColumns;
    const F32 bias[2] = {Load(w.bias.data() + column), Load(w.bias.data() + column + kFloats)};
    ForTiles<Products::kRows>(m, [&](size_t row, auto height) {
      constexpr int R = decltype(height)::value;
      Tile<F32, R> tile;
      Products::MultiplyFloat(x + row * ldx, ldx, panel, w.inputs, tile);
      for (int r = 0; r < R; ++r) {
        for (size_t half = 0; half < 2; ++half) {
          const size_t n = column + half * kFloats;
          // The last panel may be cut anywhere.
          if (n < w.outputs) StoreFirst(y + (row + r) * ldy + n, w.outputs - n, tile.at[r][half] + bias[half]);
        }
      }
    });
  }
}

}  // namespace
}  // namespace bitpress::avx2
