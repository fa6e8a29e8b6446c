// fp32: six queries at a time against keys and values packed once per call (8-bit: uint8/). What an ISA multiplies a
// tile with is its own.
//
// Keys become panels of 16 (score tiles of 6 x 16), values panels of 16 head dimensions (context tiles of 6 x 16):
// scores of six queries against all keys, softmax of each row, context.
#pragma once

#include "kernels/attention/avx2_softmax.h"
#include "kernels/attention/scratch.h"
#include "kernels/simd/avx2_tiles.h"
#include "kernels/simd/avx2_transpose.h"

namespace bitpress::avx2 {
namespace {

static_assert(kAttentionPanel == kTileColumns, "a panel is a tile wide");

// panels[key / 16][entry][key % 16] = entry `entry` of key `key`, entries padded to a multiple of 8, keys of 16.
void PackKeyPanels(const float* key_rows, size_t stride, size_t keys, size_t entries, float* panels) {
  const size_t padded = RoundUp(entries, 8);
  for (size_t key = 0; key < RoundUp(keys, kTileColumns); key += 8) {
    const float* rows = key_rows + key * stride;
    float* panel = panels + key / kTileColumns * padded * kTileColumns + key % kTileColumns;
    for (size_t entry = 0; entry < padded; entry += 8) {
      F32 block[8];
      if (key + 8 <= keys && entry + 8 <= entries) {
        LoadTransposed8x8(rows + entry, stride, block);
      } else {
        const I32 mask = TailMask(entries - entry);
        for (size_t i = 0; i < 8; ++i) {
          block[i] = key + i < keys ? LoadMasked(rows + i * stride + entry, mask) : Zero();
        }
        Transpose8x8(block);
      }
      for (size_t i = 0; i < 8; ++i) Store(panel + (entry + i) * kTileColumns, block[i]);
    }
  }
}

void PackValueFloats(const float* value, size_t stride, size_t tokens, size_t columns, float* panels) {
  for (size_t column = 0; column < columns; column += kTileColumns) {
    const size_t count = columns - column;
    const I32 mask[2] = {TailMask(count), TailMask(count > kFloats ? count - kFloats : 0)};
    for (size_t token = 0; token < tokens; ++token) {
      const float* row = value + token * stride + column;
      Store(panels, LoadMasked(row, mask[0]));
      Store(panels + kFloats, LoadMasked(row + kFloats, mask[1]));
      panels += kTileColumns;
    }
  }
}

template <class Products, class V, int R>
void AttendFloat(const AttentionHead& head, const AttentionBuffers& b, size_t query) {
  const size_t tokens = head.tokens, d = head.head_size;
  const F32 root = {_mm256_sqrt_ps(_mm256_set1_ps(static_cast<float>(d)))};

  for (size_t key = 0; key < tokens; key += kTileColumns) {
    const float* panel = b.key_panels + key * RoundUp(d, 8);
    Tile<F32, R> tile;
    Products::MultiplyFloat(head.query + query * head.stride, head.stride, panel, d, tile);
    for (int r = 0; r < R; ++r) {
      Store(b.scores + r * b.score_stride + key, tile.at[r][0] / root);
      Store(b.scores + r * b.score_stride + key + kFloats, tile.at[r][1] / root);
    }
  }
  TimeSoftmax(head.clock, [&] {
    for (int r = 0; r < R; ++r) Softmax<V>(b.scores + r * b.score_stride, tokens);
  });
  for (size_t column = 0; column < d; column += kTileColumns) {
    Tile<F32, R> tile;
    Products::MultiplyFloat(b.scores, b.score_stride, b.value_panels + column * tokens, tokens, tile);
    for (int r = 0; r < R; ++r) {
      for (size_t half = 0; half < 2; ++half) {
        const size_t c = column + half * kFloats;
        StoreFirst(head.context + (query + r) * head.context_stride + c, d > c ? d - c : 0, tile.at[r][half]);
      }
    }
  }
}

// Products::MultiplyFloat (avx2_tiles.h) for tiles of up to Products::kRows. V: the vector of kLanes floats of softmax.
template <class Products, class V>
void Attend(const AttentionHead& head, void* scratch) {
  const size_t tokens = head.tokens, d = head.head_size;
  static_assert(kQueryRows % Products::kRows == 0, "whole tiles");
  size_t bytes;
  const AttentionBuffers b = LayOutAttention(scratch, tokens, d, &bytes);

  PackKeyPanels(head.key, head.stride, tokens, d, b.key_panels);
  PackValueFloats(head.value, head.stride, tokens, d, b.value_panels);
  ForTiles<Products::kRows>(head.queries, [&](size_t query, auto height) {
    AttendFloat<Products, V, decltype(height)::value>(head, b, query);
  });
}

}  // namespace
}  // namespace bitpress::avx2
