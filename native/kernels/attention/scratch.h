// Where the buffers of one attention call lie in its scratch; the same for every ISA and both kinds of product.
#pragma once

#include "kernels/attention/attention.h"

namespace bitpress {

// Query rows handled together: a register tile of the AVX2 kernels.
constexpr size_t kQueryRows = 6;
// Columns of a panel: keys (of Q K^T) or head dimensions (of P V).
constexpr size_t kAttentionPanel = 16;
// Codes of one row are padded with zeros to a whole 128-bit load.
constexpr size_t kCodePadding = 16;

struct AttentionBuffers {
  size_t code_stride;         // of query_codes, key_codes, value_codes: head_size padded to kCodePadding
  size_t probability_stride;  // of probability_codes: tokens padded to kCodePadding
  size_t score_stride;        // of scores: tokens padded to kAttentionPanel

  uint8_t* key_codes;    // tokens x code_stride
  uint8_t* value_codes;  // tokens x code_stride
  float* key_scale;      // score_stride each, as are key_offset and key_sum
  float* key_offset;
  int32_t* key_sum;

  // One tile of queries at a time. `wide` holds either kind of code as int16.
  uint8_t* query_codes;  // kQueryRows x code_stride
  float* query_scale;    // kQueryRows, as are the next two
  float* query_offset;
  int32_t* query_sum;
  float* scores;               // kQueryRows x score_stride, then probabilities
  uint8_t* probability_codes;  // kQueryRows x probability_stride
  int16_t* wide;               // kQueryRows x max(code_stride, probability_stride)

  // Panels of kAttentionPanel columns, 4 bytes an entry: a float, or the two int16 codes of a pair of inputs.
  float* key_panels;    // panels of keys x head_size padded to 8 x 16
  float* value_panels;  // panels of head dimensions x tokens (8-bit: pairs of tokens) x 16
};

// Lays the buffers out from `scratch`, 64-byte aligned each; *bytes is what they take in all (scratch may be NULL
// then).
AttentionBuffers LayOutAttention(void* scratch, size_t tokens, size_t head_size, size_t* bytes);

}  // namespace bitpress
