// 8-bit activations times weights of few-bit codes: y = x w^T + bias, one kernel family for every stored form.
//
// An activation is s_x q + o_x: code q in 0..255, scale and offset of its row. A weight is scale * w + offset: w the
// signed 8-bit integer that its code stands for (ternary: -1..1; uniform: code - 2^(bits - 1); codebook: the table's
// entry; binary: -1 or 1), scale and offset those of its group. Stored offsets are those of code 0; the ones here are
// those of w = 0, fma(2^(bits - 1), scale, stored offset): small numbers, where large ones would cancel in the sums
// below. A weight may also be the sum of two binary terms, scale_1 w_1 + scale_2 w_2: then its groups are the terms,
// and what is said of one group's inputs goes for all inputs.
//
// A weight of a codebook may be an outlier, a number w* of its own (GOBO). Its code is multiplied like any other, and
// what is missing then, delta = w* - scale * w, is one more term of the chain below.
//
// All sums of integers are exact. In floats, in exactly this order, n an output, g its groups along the inputs:
//   no offset, one group      y = fma(float(sum q w), s_x * scale[n], fma(o_x * scale[n], float(sum w), bias[n]))
//   otherwise                 t = fma(float(sum_g q w), scale[g][n], t) for each g in order, from +0, after each one
//                             t = fma(float(sum_g q), offset[g][n], t) where there are offsets;
//                             t = fma(float(q), delta, t) for each outlier of n, in order of inputs;
//                             y = fma(s_x, t, fma(o_x, weight_sum[n], bias[n]))
// where weight_sum[n] is the same chain with every q = 1: the sum of the row's weights. A matrix with an outlier
// anywhere takes the second formula for all of its outputs.
//
// [Two terms in one sum, of integers m w_1 + w_2: the ratio of their scales is no integer, and one of its own in each
// row.]
#pragma once

#include <vector>

#include "kernels/aligned_bytes.h"
#include "kernels/packed_codes/packed_codes.h"

namespace bitpress {

// Output columns of one panel and inputs of one step of a kernel.
constexpr size_t kPanelColumns = 16;
constexpr size_t kPanelDepth = 4;

// |sum q w| is at most 255 * 128 * inputs: int32 holds 65,793 inputs.
constexpr size_t kMaxIntegerInputs = 65536;
static_assert(kMaxIntegerInputs * 255 * 128 < (size_t{1} << 31), "int32 holds every sum");
// Groups along the inputs are whole multiples of this many.
constexpr size_t kGroupGranularity = 32;

// The outliers of a matrix, row after row; nothing is owned.
struct OutlierList {
  const uint16_t* counts = nullptr;   // of each row
  const uint16_t* columns = nullptr;  // ascending within a row
  const float* values = nullptr;
  size_t count = 0;
};

// Weights as artifacts store them; nothing is owned. Binary ones meet 8-bit activations here, 1-bit ones in
// kernels/binary_linear. Blocks of group_rows outputs x group_inputs inputs share a scale and an offset: scale[n /
// group_rows * ceil(inputs / group_inputs) + k / group_inputs]. Codes and scales of a second term follow those of the
// first.
struct PackedWeights {
  CodeFormat format;
  size_t outputs = 0, inputs = 0;  // inputs <= kMaxIntegerInputs
  const uint8_t* codes = nullptr;  // outputs rows of PackedRowBytes(format, inputs)
  size_t group_rows = 0;           // 1..outputs
  size_t group_inputs = 0;         // `inputs`, or a multiple of kGroupGranularity
  const float* scale = nullptr;
  const float* offset = nullptr;  // NULL: none; only and always where uniform codes are not symmetric
  const int8_t* table = nullptr;  // codebook: 2^bits integers
  size_t terms = 1;               // binary: 1 or 2
  OutlierList outliers = {};      // codebook
};

// Outliers are kept for kOutlierColumns neighbouring outputs together, a register of AVX2: they are added to the sums
// of one panel half as sparse columns of it.
constexpr size_t kOutlierColumns = 8;
constexpr size_t kPanelHalves = kPanelColumns / kOutlierColumns;

struct Outlier {
  uint16_t input;
  uint16_t column;  // 0..kOutlierColumns-1
  float delta;
};
static_assert(kMaxIntegerInputs - 1 <= UINT16_MAX, "an input fits");
static_assert(sizeof(Outlier) == 8, "85 million weights with 0.2 % of them take 1.4 MB");

// The weights re-laid for the kernels: panels of kPanelColumns outputs, each weight in its few bits (layout.h), padded
// to whole blocks of inputs and whole panels. Of two terms the second one's inputs follow the first one's, but they
// read the same activations: input k of a panel reads code k % term_inputs of a row. The layout is the same for every
// ISA.
struct IntegerMatrix {
  size_t outputs = 0, inputs = 0;
  size_t panels = 0;         // ceil(outputs / kPanelColumns)
  size_t term_inputs = 0;    // the codes of a row of activations must be readable, and zero, up to here
  size_t padded_inputs = 0;  // of all terms
  unsigned bits = 0;         // a weight, as it is packed: binary ones have 2
  size_t panel_bytes = 0;
  int8_t table[16] = {};  // fewer than 8 bits: the integer of each code; 8 bits are stored as the integers themselves
  size_t group_inputs = 0, groups = 0;  // along the inputs; one group covers term_inputs
  AlignedBytes packed;                  // panels x panel_bytes
  std::vector<float> scale, offset;     // panels x groups x kPanelColumns; offset may be empty
  std::vector<int32_t> code_sum;        // sum of w, panels x kPanelColumns
  std::vector<float> weight_sum;        // panels x kPanelColumns
  std::vector<float> bias;              // panels x kPanelColumns
  std::vector<Outlier> outliers;        // by panel half, then input
  std::vector<size_t> outlier_begin;    // of each half of each panel, and the end; empty without outliers
  // Of each panel, for how many steps an int16 lane holds the sums of products, found from the weights (pack.cc): 0
  // where not for one, so that the panel takes a slower kernel.
  std::vector<uint8_t> int16_steps;

  // Whether sums of groups are chained, as in the second formula above. Outliers follow it with the sum of one group.
  bool is_chained() const { return groups > 1 || !offset.empty(); }
  size_t fast_panels() const;
};

// All but the panels; bias NULL means zero. Throws std::bad_alloc.
IntegerMatrix MakeIntegerMatrix(const PackedWeights& weights, const float* bias);
// Bytes of scratch that PackPanel wants.
size_t PackScratchBytes(const IntegerMatrix& matrix);
// Fills one panel; panels may be packed at the same time. The first row with invalid codes, or `outputs` where there is
// none; the panel is of no use then.
size_t PackPanel(const PackedWeights& weights, size_t panel, uint8_t* scratch, IntegerMatrix* matrix);

// a: m rows of activation codes, stride lda >= w.term_inputs, zero past w.inputs. y: m x w.outputs, row stride ldy;
// columns of panels panel_begin..panel_end-1 are written.
using IntegerLinearFn = void (*)(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                                 const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy);

namespace reference {
void IntegerLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy);
}
namespace avx2 {
void IntegerLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy);
}
namespace avxvnni {
void IntegerLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy);
}
namespace avx512vnni {
void IntegerLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy);
}
namespace neondot {
void IntegerLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy);
}
}  // namespace bitpress
