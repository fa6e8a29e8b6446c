// Slow reference: one bit at a time.
#include <algorithm>

#include "kernels/sign_bits/sign_bits.h"

namespace bitpress::reference {

void SignBits(const float* x, size_t ldx, size_t rows, size_t cols, float threshold, const float* column_thresholds,
              uint8_t* bits, size_t ldb) {
  std::fill(bits, bits + rows * ldb, uint8_t{0});
  for (size_t row = 0; row < rows; ++row) {
    for (size_t col = 0; col < cols; ++col) {
      const bool bit = x[row * ldx + col] >= (column_thresholds ? column_thresholds[col] : threshold);
      bits[row * ldb + col / 8] |= static_cast<uint8_t>(bit << (col % 8));
    }
  }
}

}  // namespace bitpress::reference
