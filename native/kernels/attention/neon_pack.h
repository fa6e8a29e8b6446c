// Rows of 4-byte elements (a float, four codes) to the columns of a panel. For neon.cc files only.
#pragma once

#include "kernels/simd/neon_tiles.h"

namespace bitpress::neondot {

// panel[element][column], column i from row i, those past the rows zero. load(row, element) gives four elements of a
// row, whatever past its last.
template <class L>
inline void PackColumns(size_t rows, size_t elements, uint8_t* panel, L load) {
  constexpr size_t kBytes = 4;
  for (size_t row = 0; row < kTileColumns; row += 4) {
    for (size_t element = 0; element < elements; element += 4) {
      const auto row_or_zero = [&](size_t i) { return i < rows ? load(i, element) : I32{vdupq_n_s32(0)}; };
      const Four<I32> block =
          Transpose4x4({row_or_zero(row), row_or_zero(row + 1), row_or_zero(row + 2), row_or_zero(row + 3)});
      uint8_t* to = panel + (element * kTileColumns + row) * kBytes;
      const auto store = [&](size_t i, I32 column) {
        if (element + i < elements) vst1q_u8(to + i * kTileColumns * kBytes, vreinterpretq_u8_s32(column.v));
      };
      store(0, block.a);
      store(1, block.b);
      store(2, block.c);
      store(3, block.d);
    }
  }
}

}  // namespace bitpress::neondot
