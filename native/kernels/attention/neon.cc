// fp32: four queries at a time against keys and values packed once per call (8-bit: uint8/neon.cc).
//
// Keys become panels of 16 (score tiles of 4 x 16), values panels of 16 head dimensions (context tiles of 4 x 16):
// scores of four queries against all keys, softmax of each row, context.
#include "kernels/activation/polynomials.h"
#include "kernels/attention/neon_pack.h"
#include "kernels/attention/scratch.h"
#include "kernels/simd/neon_tiles.h"

namespace bitpress::neondot {
namespace {

static_assert(kQueryRows % kTileRows == 0 && kAttentionPanel == kTileColumns, "whole tiles");

// panels[key / 16][dimension][key % 16]; keys past the last are zeros.
void PackKeys(const AttentionHead& head, float* panels) {
  const size_t d = head.head_size;
  for (size_t key = 0; key < head.tokens; key += kTileColumns, panels += d * kTileColumns) {
    PackColumns(head.tokens - key, d, reinterpret_cast<uint8_t*>(panels), [&](size_t i, size_t c) {
      const float* from = head.key + (key + i) * head.stride + c;
      float four[4] = {};
      if (d - c < 4) __builtin_memcpy(four, from, (d - c) * sizeof(float));
      return AsInt({vld1q_f32(d - c < 4 ? four : from)});
    });
  }
}

// panels[dimension / 16][token][dimension % 16]
void PackValues(const AttentionHead& head, float* panels) {
  for (size_t column = 0; column < head.head_size; column += kTileColumns) {
    for (size_t token = 0; token < head.tokens; ++token, panels += kTileColumns) {
      Store(panels, LoadFirst(head.value + token * head.stride + column, head.head_size - column));
    }
  }
}

// In place over n scores; the row has room to a multiple of 16 and what lies past n is overwritten.
void Softmax(float* x, size_t n) {
  const size_t padded = RoundUp(n, kLanes);
  // -inf past the end: exp gives the +0 that the summation order wants there, and the maximum ignores it.
  for (size_t j = n; j < padded; ++j) x[j] = -__builtin_inff();
  F32x16 highest = F32x16::Broadcast(x[0]);
  for (size_t j = 0; j < padded; j += kLanes) highest = Max(Load(x + j), highest);
  const F32x16 max = F32x16::Broadcast(ReduceMax(highest));
  F32x16 sum = Zero();
  for (size_t j = 0; j < padded; j += kLanes) {
    const F32x16 e = Exp(Load(x + j) - max);
    Store(x + j, e);
    sum = sum + e;
  }
  const F32x16 total = F32x16::Broadcast(SumLanes(sum));
  for (size_t j = 0; j < padded; j += kLanes) Store(x + j, Load(x + j) / total);
}

template <int R>
void Attend(const AttentionHead& head, const AttentionBuffers& b, F32x16 root, size_t query) {
  const size_t tokens = head.tokens, d = head.head_size;
  F32x16 tile[R];
  for (size_t key = 0; key < tokens; key += kTileColumns) {
    MultiplyFloat(head.query + query * head.stride, head.stride, b.key_panels + key * d, d, tile);
    for (int r = 0; r < R; ++r) Store(b.scores + r * b.score_stride + key, tile[r] / root);
  }
  TimeSoftmax(head.clock, [&] {
    for (int r = 0; r < R; ++r) Softmax(b.scores + r * b.score_stride, tokens);
  });
  for (size_t column = 0; column < d; column += kTileColumns) {
    MultiplyFloat(b.scores, b.score_stride, b.value_panels + column * tokens, tokens, tile);
    for (int r = 0; r < R; ++r) {
      StoreFirst(head.context + (query + r) * head.context_stride + column, d - column, tile[r]);
    }
  }
}

}  // namespace

void AttentionFloat(const AttentionHead& head, void* scratch) {
  size_t bytes;
  const AttentionBuffers b = LayOutAttention(scratch, head.tokens, head.head_size, &bytes);
  const F32 root = Sqrt(F32::Broadcast(static_cast<float>(head.head_size)));
  PackKeys(head, b.key_panels);
  PackValues(head, b.value_panels);
  ForTiles(head.queries, [&](size_t query, auto height) {
    Attend<decltype(height)::value>(head, b, {root, root, root, root}, query);
  });
}

}  // namespace bitpress::neondot
