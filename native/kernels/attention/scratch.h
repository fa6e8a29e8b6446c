// Where the buffers of one attention call lie in its scratch; the same for every ISA and both kinds of product.
#pragma once

#include "kernels/attention/attention.h"

namespace bitpress {

// Query rows handled together: two register tiles of the AVX2 kernels.
constexpr size_t kQueryRows = 12;
// Columns of a panel: keys (of Q K^T) or head dimensions (of P V). Also what rows of int16 codes are padded to.
constexpr size_t kAttentionPanel = 16;
// Rows that are quantized together, one a lane.
constexpr size_t kLaneRows = 8;

struct AttentionBuffers {
  size_t code_stride;   // of query_codes, key_codes, value_codes: head_size padded to kAttentionPanel
  size_t score_stride;  // of scores, probability_codes: tokens padded to kAttentionPanel

  float* query_scale;  // score_stride each, and so are the next five; scale and offset of queries over sqrt(d)
  float* query_offset;
  float* query_sum;
  float* key_scale;
  float* key_offset;
  float* key_constant;   // fma(scale, sum of codes, d * offset)
  int16_t* query_codes;  // score_stride x code_stride; 8-bit ones take half of each row, and so below
  float* lanes;          // code_stride x kLaneRows: rows being quantized, transposed

  // One tile of queries at a time.
  float* scores;               // kQueryRows x score_stride, then probabilities
  int16_t* probability_codes;  // kQueryRows x score_stride

  // Panels of kAttentionPanel columns, 4 bytes an entry: a float, or a word of two int16 or four 8-bit codes.
  float* key_panels;    // panels of keys x head_size (8-bit: words of dimensions) x 16
  float* value_panels;  // panels of head dimensions x tokens (8-bit: words of tokens) x 16
};

// Lays the buffers out from `scratch`, 64-byte aligned each; *bytes is what they take in all (scratch may be NULL
// then).
AttentionBuffers LayOutAttention(void* scratch, size_t tokens, size_t head_size, size_t* bytes);

}  // namespace bitpress
