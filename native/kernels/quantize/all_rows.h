// Rows and blocks of them, written once over what an ISA has for one row:
//   RangeSearch     AddRow(x, cols); Whole(), the range of all that was added
//   CodeRow(x, cols, spec, book, codes)
//                   the codes of a row without NaN; their sum
#pragma once

#include "kernels/quantize/codebook.h"
#include "kernels/quantize/quantize.h"

namespace bitpress {

// One row with its codebook in every lane. A scale of NaN gives codes of 0; what follows the codes is 0.
template <class Isa, class V>
inline int32_t CodeAnyRow(const float* x, size_t cols, const QuantizeSpec& spec, const Codebook<V>& book,
                          uint8_t* codes, size_t ldc) {
  __builtin_memset(codes + cols, 0, ldc - cols);
  if (__builtin_isnan(FirstLane(book.scale))) {
    __builtin_memset(codes, 0, cols);
    return 0;
  }
  return Isa::CodeRow(x, cols, spec, book, codes);
}

template <class Isa>
inline void QuantizeAllRows(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec,
                            uint8_t* codes, size_t ldc, float* scale, float* offset, int32_t* code_sum) {
  for (size_t row = 0; row < rows; ++row) {
    const float* xr = x + row * ldx;
    typename Isa::RangeSearch search;
    if (!spec.is_static) search.AddRow(xr, cols);
    const auto book = MakeCodebook(spec, search.Whole());
    const int32_t sum = CodeAnyRow<Isa>(xr, cols, spec, book, codes + row * ldc, ldc);
    if (code_sum) code_sum[row] = sum;
    scale[row] = FirstLane(book.scale);
    offset[row] = FirstLane(book.offset);
  }
}

template <class Isa>
inline void QuantizeWholeBlock(const float* x, size_t ldx, size_t rows, size_t cols, const QuantizeSpec& spec,
                               uint8_t* codes, size_t ldc, float* scale, float* offset) {
  typename Isa::RangeSearch search;
  if (!spec.is_static) {
    for (size_t row = 0; row < rows; ++row) search.AddRow(x + row * ldx, cols);
  }
  const auto book = MakeCodebook(spec, search.Whole());
  for (size_t row = 0; row < rows; ++row) {
    CodeAnyRow<Isa>(x + row * ldx, cols, spec, book, codes + row * ldc, ldc);
  }
  *scale = FirstLane(book.scale);
  *offset = FirstLane(book.offset);
}

}  // namespace bitpress
