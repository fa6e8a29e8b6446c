// Bi-Attention (BiBERT) of one head of one sequence, on bits alone.
//
// Queries, keys and values are signs. A key is attended where its score, the dot product of signs, is >= 0; the context
// is the sum of the values of the attended keys:
//   attended(i,j) = 2 popcount(q_i xor k_j) <= head_size
//   context(i,c)  = 2 popcount(attended_i and v_c) - popcount(attended_i)
// |context| <= tokens; a query that attends to nothing has context 0. Neither softmax, nor a scale, nor 1 / sqrt(d):
// none of them changes a sign.
#pragma once

#include "kernels/binary_linear/binary_linear.h"

namespace bitpress {

constexpr size_t kMaxBitHeadSize = 256;

// Where one head of one sequence lies in rows of bits (binary_linear.h), one a token. Heads need not start at a byte.
struct BitHead {
  const uint8_t* query;
  const uint8_t* key;
  const uint8_t* value;
  size_t stride;     // bytes from token to token
  size_t first_bit;  // of the head within a row
  size_t tokens;     // <= kMaxBinaryInputs
  size_t head_size;  // <= kMaxBitHeadSize
};

// Bytes of scratch that one call needs, for the longest sequence it will see; 64-byte aligned.
size_t BitAttentionScratchBytes(size_t tokens, size_t head_size);

// context: tokens x head_size, row stride in int16.
using BitAttentionFn = void (*)(const BitHead& head, int16_t* context, size_t context_stride, void* scratch);
// bit = (context >= threshold) xor flip per column, by PackThresholds(..., head_size). bits: rows of
// BitRowBytes(head_size) bytes, row stride in bytes; bits past head_size are zero.
using BitAttentionBitsFn = void (*)(const BitHead& head, const BinaryThresholds& thresholds, uint8_t* bits,
                                    size_t bits_stride, void* scratch);

namespace reference {
void BitAttention(const BitHead& head, int16_t* context, size_t context_stride, void* scratch);
void BitAttentionBits(const BitHead& head, const BinaryThresholds& thresholds, uint8_t* bits, size_t bits_stride,
                      void* scratch);
}  // namespace reference
namespace avx2 {
void BitAttention(const BitHead& head, int16_t* context, size_t context_stride, void* scratch);
void BitAttentionBits(const BitHead& head, const BinaryThresholds& thresholds, uint8_t* bits, size_t bits_stride,
                      void* scratch);
}  // namespace avx2
namespace neondot {
void BitAttention(const BitHead& head, int16_t* context, size_t context_stride, void* scratch);
void BitAttentionBits(const BitHead& head, const BinaryThresholds& thresholds, uint8_t* bits, size_t bits_stride,
                      void* scratch);
}  // namespace neondot
}  // namespace bitpress
