// Slow reference: the formulas of quantize.h, one element at a time.
#include <cmath>
#include <limits>

#include "kernels/quantize/codebook.h"
#include "kernels/quantize/quantize.h"
#include "kernels/simd/scalar.h"

namespace bitpress::reference {
namespace {

using scalar::F32;

Range<F32> RangeOf(const float* x, size_t ldx, size_t rows, size_t cols) {
  float low = std::numeric_limits<float>::infinity(), high = -low, nan = 0.0f;
  for (size_t row = 0; row < rows; ++row) {
    for (size_t col = 0; col < cols; ++col) {
      const float v = x[row * ldx + col];
      if (std::isnan(v)) nan = v;
      if (v < low) low = v;
      if (v > high) high = v;
    }
  }
  return {{low}, {high}, {nan}};
}

uint8_t Code(float x, const QuantizeSpec& spec, const Codebook<F32>& book) {
  const CodeLimits<F32> limits(spec);
  if (std::isnan(book.scale.v)) return 0;
  // nearbyint: half to even in the default rounding mode. The clamp comes before the conversion to int, and Max takes
  // `low` for a NaN.
  const F32 rounded = {std::nearbyint(((Clip(F32{x}, spec.clip) - book.zero) / book.scale).v)};
  return static_cast<uint8_t>(static_cast<int>(Min(Max(rounded, limits.low), limits.high).v) + limits.shift);
}

void CodeRow(const float* x, size_t cols, const QuantizeSpec& spec, const Codebook<F32>& book, uint8_t* codes,
             size_t ldc, int32_t* sum) {
  int32_t total = 0;
  for (size_t col = 0; col < cols; ++col) {
    codes[col] = Code(x[col], spec, book);
    total += codes[col];
  }
  for (size_t col = cols; col < ldc; ++col) codes[col] = 0;
  if (sum) *sum = total;
}

}  // namespace

void QuantizeRows(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                  size_t ldc, float* scale, float* offset, int32_t* code_sum) {
  for (size_t row = 0; row < rows; ++row) {
    const float* xr = x + row * ldx;
    const Codebook<F32> book = MakeCodebook(spec, RangeOf(xr, ldx, 1, cols));
    CodeRow(xr, cols, spec, book, codes + row * ldc, ldc, code_sum ? code_sum + row : nullptr);
    scale[row] = book.scale.v;
    offset[row] = book.offset.v;
  }
}

void QuantizeBlock(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                   size_t ldc, float* scale, float* offset) {
  const Codebook<F32> book = MakeCodebook(spec, RangeOf(x, ldx, rows, cols));
  for (size_t row = 0; row < rows; ++row) {
    CodeRow(x + row * ldx, cols, spec, book, codes + row * ldc, ldc, nullptr);
  }
  *scale = book.scale.v;
  *offset = book.offset.v;
}

}  // namespace bitpress::reference
