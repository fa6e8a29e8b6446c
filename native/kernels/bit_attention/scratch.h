// Where the buffers of one bit attention call lie in its scratch.
#pragma once

#include "kernels/binary_linear/layout.h"
#include "kernels/bit_attention/bit_attention.h"

namespace bitpress {

// Queries handled together: two pairs of rows, a tile of the AVX2 counts.
constexpr size_t kBitQueries = 4;

struct BitAttentionBuffers {
  // Steps of a score (12 dimensions) and of a context (12 keys).
  size_t head_triples, token_triples;
  size_t head_panels, token_panels;  // of 64

  // Rows of bits that start at the head's first, padded with zeros.
  size_t row_bytes;     // of a query, key or value
  uint8_t* queries;     // tokens padded to kBitQueries
  uint8_t* keys;        // tokens padded to 64
  uint8_t* values;      // tokens padded to 12
  size_t attended_row;  // bytes of a row of attended
  uint8_t* attended;    // tokens padded to kBitQueries, one bit a key

  // A nibble in each byte, 64 bytes for each four dimensions of 64 keys, and for each four keys of 64 dimensions.
  uint8_t* key_panels;    // token_panels x head_triples x 3 x 64
  uint8_t* value_panels;  // head_panels x token_triples x 3 x 64

  uint16_t* query_offsets;     // kBitQueries / 2 x OffsetStride(head_triples)
  uint16_t* attended_offsets;  // kBitQueries / 2 x OffsetStride(token_triples)

  uint16_t* mismatches;  // kBitQueries x token_panels x 64, where softmax decides
};

// Lays the buffers out from `scratch`, 64-byte aligned each; *bytes is what they take in all (scratch may be NULL
// then).
BitAttentionBuffers LayOutBitAttention(void* scratch, size_t tokens, size_t head_size, size_t* bytes);

// Of a kernel that counts the bits of whole words, for heads of up to kMaxBitWordHeadSize dimensions.
constexpr size_t kMaxBitWordHeadSize = 64;
// Queries handled together: their totals of softmax are added at the same time.
constexpr size_t kWordQueries = 16;

struct BitWordBuffers {
  size_t panels;  // of 64 keys

  // Rows of kMaxBitWordHeadSize bits that start at the head's first, padded with zeros.
  uint8_t* queries;  // tokens padded to kWordQueries
  uint8_t* rows;     // of keys, then of values: tokens padded to 64

  uint8_t* key_panels;   // panels x 8 x 64: eight dimensions of 64 keys in turn
  uint8_t* value_words;  // 2 x panels BinaryWords (layout.h): columns are outputs, keys inputs

  uint8_t* mismatches;  // kWordQueries x panels x 64
  uint8_t* attended;    // tokens padded to kWordQueries x panels x 8, one bit a key
};

BitWordBuffers LayOutBitWords(void* scratch, size_t tokens, size_t* bytes);

}  // namespace bitpress
