// fp32 to one bit: bit = x >= threshold, one threshold for all or one a column; false where either is NaN.
//
// Threshold 0 is sgn with sgn(0) = +1 (-0 included). Every other binarizer that is monotone in x comes down to it:
// fold_threshold.h finds the threshold that gives the same bits.
#pragma once

#include "kernels/numerics.h"

namespace bitpress {

// x: rows x cols floats, row stride ldx. column_thresholds: cols floats, or NULL: all are `threshold`. bits: rows of
// strings of bits as in binary_linear.h, row stride ldb >= ceil(cols / 8) bytes; all ldb bytes are written, the bits
// past cols as zero.
using SignBitsFn = void (*)(const float* x, size_t ldx, size_t rows, size_t cols, float threshold,
                            const float* column_thresholds, uint8_t* bits, size_t ldb);

namespace reference {
void SignBits(const float* x, size_t ldx, size_t rows, size_t cols, float threshold, const float* column_thresholds,
              uint8_t* bits, size_t ldb);
}
namespace avx2 {
void SignBits(const float* x, size_t ldx, size_t rows, size_t cols, float threshold, const float* column_thresholds,
              uint8_t* bits, size_t ldb);
}
namespace neondot {
void SignBits(const float* x, size_t ldx, size_t rows, size_t cols, float threshold, const float* column_thresholds,
              uint8_t* bits, size_t ldb);
}
}  // namespace bitpress
