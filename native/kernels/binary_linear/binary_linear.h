// 1-bit activations times 1-bit weights: an exact integer dot product, then fp32 or one bit per output.
//
// Weights are signs, -1 or +1. Activations are signs too, or 0 and 1 (BitSet):
//   signs      dot = inputs - 2 popcount(a xor w)
//   zero, one  dot = sum of w over the ones of a = 2 popcount(a and w) - popcount(a)
// |dot| <= inputs in both.
//
// A row of bits is a string of bytes: value j is bit j % 8 of byte j / 8, 1 means +1 (or one), and the bits past the
// last value are zero. That is the artifact's form of a weight row and the form of all bits in and out of the kernels.
#pragma once

#include <vector>

#include "kernels/aligned_bytes.h"

namespace bitpress {

// Outputs of one panel: eight whole bytes of output bits, so that panels can be computed by different threads.
constexpr size_t kBitPanel = 64;
// A dot product fits int16 and leaves its two extremes to thresholds that nothing and everything passes.
constexpr size_t kMaxBinaryInputs = 32766;

constexpr size_t BitRowBytes(size_t values) { return (values + 7) / 8; }

enum class BitSet { kSigns, kZeroOne };

// How the bits of a panel are laid (layout.h): for look-ups of nibbles, or to be counted in words.
enum class BinaryLayout { kNibbles, kWords };

// Sign bits re-laid for the kernels, one bit a weight, padded with zero bits.
struct BinaryMatrix {
  size_t outputs = 0, inputs = 0;
  size_t panels = 0;   // ceil(outputs / kBitPanel)
  size_t triples = 0;  // kNibbles: steps of 12 inputs
  size_t panel_bytes = 0;
  AlignedBytes packed;  // panels x panel_bytes
};

// bits: outputs x BitRowBytes(inputs); inputs <= kMaxBinaryInputs. layout: Kernels::binary_layout of the kernels that
// will read the matrix.
BinaryMatrix PackBinary(const uint8_t* bits, size_t outputs, size_t inputs, BinaryLayout layout);

// y = fma(float(dot), scale, bias) per output.
struct BinaryAffine {
  std::vector<float> scale, bias;  // panels x kBitPanel
};
// scale: one per output; scales that an activation has of its own are multiplied in. bias: NULL is zero.
BinaryAffine PackAffine(const float* scale, const float* bias, size_t outputs);

// bit = (dot > above) xor flip per output.
struct BinaryThresholds {
  std::vector<int16_t> above, flip;  // panels x kBitPanel; flip is 0 or -1
};
// bit = (dot >= threshold[n]) xor flip[n]; any int32 threshold. flip: NULL, or 0 or 1 per output. fold_threshold.h
// gives both for a bit that is the sign of a float function of dot.
BinaryThresholds PackThresholds(const int32_t* threshold, const uint8_t* flip, size_t outputs);

struct BinaryInput {
  const uint8_t* bits;  // rows x BitRowBytes(inputs)
  size_t stride;        // bytes
  size_t rows;
  BitSet set;
};

// Bytes of scratch that one call needs, 64-byte aligned; the same for every layout.
size_t BinaryLinearScratchBytes(const BinaryMatrix& w);

// y: rows x w.outputs, row stride ldy; the columns of panels panel_begin..panel_end-1 are written.
using BinaryLinearFloatFn = void (*)(const BinaryInput& x, const BinaryMatrix& w, const BinaryAffine& affine,
                                     size_t panel_begin, size_t panel_end, float* y, size_t ldy, void* scratch);
// y: rows x w.panels * 8 bytes, row stride ldy bytes; of panels panel_begin..panel_end-1 all eight bytes are written,
// bits past w.outputs as zero.
using BinaryLinearBitsFn = void (*)(const BinaryInput& x, const BinaryMatrix& w, const BinaryThresholds& thresholds,
                                    size_t panel_begin, size_t panel_end, uint8_t* y, size_t ldy, void* scratch);

namespace reference {
void BinaryLinearFloat(const BinaryInput& x, const BinaryMatrix& w, const BinaryAffine& affine, size_t panel_begin,
                       size_t panel_end, float* y, size_t ldy, void* scratch);
void BinaryLinearBits(const BinaryInput& x, const BinaryMatrix& w, const BinaryThresholds& thresholds,
                      size_t panel_begin, size_t panel_end, uint8_t* y, size_t ldy, void* scratch);
}  // namespace reference
namespace avx2 {
void BinaryLinearFloat(const BinaryInput& x, const BinaryMatrix& w, const BinaryAffine& affine, size_t panel_begin,
                       size_t panel_end, float* y, size_t ldy, void* scratch);
void BinaryLinearBits(const BinaryInput& x, const BinaryMatrix& w, const BinaryThresholds& thresholds,
                      size_t panel_begin, size_t panel_end, uint8_t* y, size_t ldy, void* scratch);
}  // namespace avx2
namespace avx512vnni {
void BinaryLinearFloat(const BinaryInput& x, const BinaryMatrix& w, const BinaryAffine& affine, size_t panel_begin,
                       size_t panel_end, float* y, size_t ldy, void* scratch);
void BinaryLinearBits(const BinaryInput& x, const BinaryMatrix& w, const BinaryThresholds& thresholds,
                      size_t panel_begin, size_t panel_end, uint8_t* y, size_t ldy, void* scratch);
}  // namespace avx512vnni
namespace avx512vpopcntdq {
void BinaryLinearFloat(const BinaryInput& x, const BinaryMatrix& w, const BinaryAffine& affine, size_t panel_begin,
                       size_t panel_end, float* y, size_t ldy, void* scratch);
void BinaryLinearBits(const BinaryInput& x, const BinaryMatrix& w, const BinaryThresholds& thresholds,
                      size_t panel_begin, size_t panel_end, uint8_t* y, size_t ldy, void* scratch);
}  // namespace avx512vpopcntdq
namespace neondot {
void BinaryLinearFloat(const BinaryInput& x, const BinaryMatrix& w, const BinaryAffine& affine, size_t panel_begin,
                       size_t panel_end, float* y, size_t ldy, void* scratch);
void BinaryLinearBits(const BinaryInput& x, const BinaryMatrix& w, const BinaryThresholds& thresholds,
                      size_t panel_begin, size_t panel_end, uint8_t* y, size_t ldy, void* scratch);
}  // namespace neondot
}  // namespace bitpress
