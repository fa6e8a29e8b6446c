// Slow reference: the formulas of quantize.h, one element at a time.
#include <cmath>
#include <limits>

#include "kernels/quantize/codebook.h"
#include "kernels/quantize/quantize.h"

namespace bitpress::reference {
namespace {

Range RangeOf(const float* x, size_t ldx, size_t rows, size_t cols) {
  Range range{std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), false};
  for (size_t row = 0; row < rows; ++row) {
    for (size_t col = 0; col < cols; ++col) {
      const float v = x[row * ldx + col];
      range.has_nan |= std::isnan(v);
      if (v < range.low) range.low = v;
      if (v > range.high) range.high = v;
    }
  }
  return range;
}

uint8_t Code(float x, float clip, const Codebook& book) {
  if (book.is_constant) return book.constant;
  // nearbyint: half to even in the default rounding mode. The clamp comes before the conversion to int, and its first
  // comparison is false for NaN, so a NaN becomes `low`.
  float code = std::nearbyint((Clip(x, clip) - book.zero) / book.scale);
  code = code > book.low ? code : book.low;
  code = code < book.high ? code : book.high;
  return static_cast<uint8_t>(static_cast<int>(code) + book.shift);
}

void CodeRow(const float* x, size_t cols, float clip, const Codebook& book, uint8_t* codes, size_t ldc, int32_t* sum) {
  int32_t total = 0;
  for (size_t col = 0; col < cols; ++col) {
    codes[col] = Code(x[col], clip, book);
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
    const Codebook book = MakeCodebook(spec, RangeOf(xr, ldx, 1, cols));
    CodeRow(xr, cols, spec.clip, book, codes + row * ldc, ldc, code_sum ? code_sum + row : nullptr);
    scale[row] = book.scale;
    offset[row] = book.offset;
  }
}

void QuantizeBlock(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec, uint8_t* codes,
                   size_t ldc, float* scale, float* offset) {
  const Codebook book = MakeCodebook(spec, RangeOf(x, ldx, rows, cols));
  for (size_t row = 0; row < rows; ++row) {
    CodeRow(x + row * ldx, cols, spec.clip, book, codes + row * ldc, ldc, nullptr);
  }
  *scale = book.scale;
  *offset = book.offset;
}

}  // namespace bitpress::reference
