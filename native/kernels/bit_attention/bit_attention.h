// Attention of one head of one sequence on bits alone: BiBERT's Bi-Attention, and BiT's binarized softmax.
//
// Queries, keys and values are signs. A score is a positive number times head_size - 2 m, with m = popcount(q xor k)
// mismatches; so a query attends to the keys up to some number of mismatches, and these weigh the same:
//   context(i,c) = 2 popcount(attended_i and v_c) - popcount(attended_i)
// |context| <= tokens; a query that attends to nothing has context 0. What a context is worth, and the scale of values,
// are left to the thresholds.
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

// Which keys a query attends to.
//
// By a fixed limit: m <= most. Bi-Attention's "score >= 0" is head_size / 2; head_size is every key.
//
// By softmax and a threshold, where `decay` is set. decay[k] is exp of minus the difference of two scores that are k
// mismatches apart: decay[0] = 1, and never rising. For a query whose fewest mismatches are f,
//   total = 0; for m = f, f + 1, ...: total = fma(number of keys with m mismatches, decay[m - f], total)
//   attended(m) = decay[m - f] / total >= least
// Every operation is rounded once, so that all ISAs decide alike.
struct AttendedKeys {
  size_t most = 0;               // at most 254, or head_size
  const float* decay = nullptr;  // [head_size + 1]
  float least = 0.0f;
};

// context: tokens x head_size, row stride in int16.
using BitAttentionFn = void (*)(const BitHead& head, const AttendedKeys& keys, int16_t* context, size_t context_stride,
                                void* scratch);
// bit = (context >= threshold) xor flip per column, by PackThresholds(..., head_size). bits: rows of
// BitRowBytes(head_size) bytes, row stride in bytes; bits past head_size are zero.
using BitAttentionBitsFn = void (*)(const BitHead& head, const AttendedKeys& keys, const BinaryThresholds& thresholds,
                                    uint8_t* bits, size_t bits_stride, void* scratch);

namespace reference {
void BitAttention(const BitHead& head, const AttendedKeys& keys, int16_t* context, size_t context_stride,
                  void* scratch);
void BitAttentionBits(const BitHead& head, const AttendedKeys& keys, const BinaryThresholds& thresholds, uint8_t* bits,
                      size_t bits_stride, void* scratch);
}  // namespace reference
namespace avx2 {
void BitAttention(const BitHead& head, const AttendedKeys& keys, int16_t* context, size_t context_stride,
                  void* scratch);
void BitAttentionBits(const BitHead& head, const AttendedKeys& keys, const BinaryThresholds& thresholds, uint8_t* bits,
                      size_t bits_stride, void* scratch);
}  // namespace avx2
namespace avx512vnni {
void BitAttention(const BitHead& head, const AttendedKeys& keys, int16_t* context, size_t context_stride,
                  void* scratch);
void BitAttentionBits(const BitHead& head, const AttendedKeys& keys, const BinaryThresholds& thresholds, uint8_t* bits,
                      size_t bits_stride, void* scratch);
}  // namespace avx512vnni
namespace avx512vpopcntdq {
void BitAttention(const BitHead& head, const AttendedKeys& keys, int16_t* context, size_t context_stride,
                  void* scratch);
void BitAttentionBits(const BitHead& head, const AttendedKeys& keys, const BinaryThresholds& thresholds, uint8_t* bits,
                      size_t bits_stride, void* scratch);
}  // namespace avx512vpopcntdq
namespace neondot {
void BitAttention(const BitHead& head, const AttendedKeys& keys, int16_t* context, size_t context_stride,
                  void* scratch);
void BitAttentionBits(const BitHead& head, const AttendedKeys& keys, const BinaryThresholds& thresholds, uint8_t* bits,
                      size_t bits_stride, void* scratch);
}  // namespace neondot
}  // namespace bitpress
