// The kernels of one ISA, chosen once at start.
#pragma once

#include <string>

#include "kernels/activation/activation.h"
#include "kernels/attention/attention.h"
#include "kernels/binary_linear/binary_linear.h"
#include "kernels/bit_attention/bit_attention.h"
#include "kernels/embedding/embedding.h"
#include "kernels/float_linear/float_linear.h"
#include "kernels/integer_linear/integer_linear.h"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/machine_limits/machine_limits.h"
#include "kernels/quantize/quantize.h"
#include "kernels/sign_bits/sign_bits.h"

namespace bitpress {

struct Kernels {
  const char* isa;
  QuantizeRowsFn quantize_rows;
  QuantizeBlockFn quantize_block;
  IntegerLinearFn integer_linear;
  FloatLinearFn float_linear;
  AttentionUint8Fn attention_uint8;
  AttentionFloatFn attention_float;
  LayerNormFn layer_norm;
  ActivateFn activate;
  DecodeTwoBitRowFn decode_two_bit_row;
  DecodeTritsRowFn decode_trits_row;
  DecodeUniformRowFn decode_uniform_row;
  DecodeCodebookRowFn decode_codebook_row;
  DecodeBinaryRowFn decode_binary_row;
  DecodeTwoTermsRowFn decode_two_terms_row;
  AddRowsFn add_rows;
  MultiplyAddsFn multiply_adds;
  BinaryLinearFloatFn binary_linear_float;
  BinaryLinearBitsFn binary_linear_bits;
  SignBitsFn sign_bits;
  BitAttentionFn bit_attention;
  BitAttentionBitsFn bit_attention_bits;
  BinaryLayout binary_layout = BinaryLayout::kNibbles;  // what binary_linear_* read
};

// The kernels named by BITPRESS_ISA, or the best that build and CPU have. NULL, with the reason in *error, where
// BITPRESS_ISA names one that is unknown or absent. Decided on the first call.
const Kernels* ChosenKernels(std::string* error);
// By name, for tests; NULL where this build or CPU lacks it.
const Kernels* KernelsFor(const char* isa);
// Comma-separated names that KernelsFor would give.
const char* AvailableIsas();

}  // namespace bitpress
