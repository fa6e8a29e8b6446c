// One panel of 16 outputs after another, all rows through it in tiles of four.
#include "kernels/float_linear/float_linear.h"
#include "kernels/simd/neon_tiles.h"

namespace bitpress::neondot {

static_assert(kFloatPanelColumns == kTileColumns, "a panel is one tile wide");

void FloatLinear(const float* x, size_t ldx, size_t m, const FloatMatrix& w, size_t panel_begin, size_t panel_end,
                 float* y, size_t ldy) {
  for (size_t p = panel_begin; p < panel_end; ++p) {
    const float* panel = w.packed.data() + p * w.inputs * kTileColumns;
    const size_t n = p * kTileColumns;
    const F32x16 bias = Load(w.bias.data() + n);
    ForTiles(m, [&](size_t row, auto height) {
      constexpr int R = decltype(height)::value;
      F32x16 tile[R];
      MultiplyFloat(x + row * ldx, ldx, panel, w.inputs, tile);
      for (int r = 0; r < R; ++r) StoreFirst(y + (row + r) * ldy + n, w.outputs - n, tile[r] + bias);
    });
  }
}

}  // namespace bitpress::neondot
