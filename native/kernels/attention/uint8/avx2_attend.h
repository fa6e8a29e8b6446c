// 8-bit products: queries, keys and values are quantized once per call, then twelve queries at a time go through
// scores, softmax and context, so that a panel of keys or values serves several register tiles while it is in L1. What
// an ISA multiplies a tile with is its own.
//
// Codes lie as pairs of int16 in 4 bytes, for `vpmaddwd` and `vpdpwssd`: 16 products an instruction, exact. [Bytes
// through `vpmaddubsw`: 0..255 times -128..127 saturates its int16 sums. With the sign of one code moved to the other
// (`vpsignb`) 32 products take sign, `vpmaddubsw`, `vpmaddwd` and an addition: four operations, as here.] As integer
// sums are exact in any order, pairs are formed as it is cheapest: of neighbouring dimensions, of tokens t and t + 8.
#pragma once

#include "kernels/attention/avx2_softmax.h"
#include "kernels/attention/scratch.h"
#include "kernels/quantize/avx2_range.h"
#include "kernels/simd/avx2_tiles.h"
#include "kernels/simd/avx2_transpose.h"

namespace bitpress::avx2 {
namespace {

static_assert(kAttentionPanel == kTileColumns, "a panel is a tile wide");
static_assert(kLaneRows == kFloats && kAttentionPanel % kLaneRows == 0, "a row a lane, whole registers in a panel");

// Two codes 0..255 of each lane as a pair of int16.
I32 PairOf(I32 low, I32 high) { return {_mm256_or_si256(low.v, _mm256_slli_epi32(high.v, 16))}; }

inline I32 PairsOf(Pair<I32> codes) { return PairOf(codes.first, codes.second); }

// Eight rows, one a lane: no search needs a reduction within a register, and scales are computed eight at a time.
struct LaneRows {
  Codebook<F32> book;
  F32 code_sum;
};

// Codes of up to eight rows of d floats; pair(p, codes of dimensions 2p and 2p + 1). Missing rows count as zeros.
template <class F>
LaneRows QuantizeLanes(const float* x, size_t stride, size_t rows, size_t d, const QuantizeSpec& spec, float* lanes,
                       F pair) {
  RangeSearch search;
  for (size_t i = 0; i < d; i += kFloats) {
    F32 block[8];
    if (rows >= kLaneRows && d - i >= kFloats) {
      LoadTransposed8x8(x + i, stride, block);
    } else {
      for (size_t r = 0; r < kLaneRows; ++r) block[r] = r < rows ? F32::LoadFirst(x + r * stride + i, d - i) : Zero();
      Transpose8x8(block);
    }
    for (size_t k = 0; k < 8; ++k) Store(lanes + (i + k) * kLaneRows, block[k]);
    if (d - i >= kFloats) {
      for (size_t k = 0; k < 8; k += 2) search.Add(block[k], block[k + 1]);
    } else {
      for (size_t k = 0; k < d - i; ++k) search.Add(block[k]);
    }
  }
  const Codebook<F32> book = MakeCodebook(spec, search.Lanes());
  I32 sum = {_mm256_setzero_si256()};
  WithCoder(spec, book, [&](const auto& coder) {
    size_t k = 0;
    for (; k + 1 < d; k += 2) {
      const I32 even = coder.Codes(Load(lanes + k * kLaneRows)), odd = coder.Codes(Load(lanes + (k + 1) * kLaneRows));
      sum = sum + (even + odd);
      pair(k / 2, PairOf(even, odd));
    }
    if (k < d) {
      const I32 last = coder.Codes(Load(lanes + k * kLaneRows));
      sum = sum + last;
      pair(k / 2, last);
    }
  });
  return {book, ToFloat(sum)};
}

// query_codes[token][dimension], and what the scores need of each query.
void QuantizeQueries(const AttentionHead& head, const QuantizeSpec& spec, const AttentionBuffers& b) {
  const size_t d = head.head_size, pairs = (d + 1) / 2;
  const F32 root = {_mm256_sqrt_ps(_mm256_set1_ps(static_cast<float>(d)))};
  for (size_t i = 0; i < head.queries; i += kLaneRows) {
    // Pair p overwrites what was read at dimensions 2p and before.
    const LaneRows rows = QuantizeLanes(head.query + i * head.stride, head.stride, head.queries - i, d, spec, b.lanes,
                                        [&](size_t p, I32 codes) { StoreInt(b.lanes + p * kLaneRows, codes); });
    Store(b.query_scale + i, rows.book.scale / root);
    Store(b.query_offset + i, rows.book.offset / root);
    Store(b.query_sum + i, rows.code_sum);
    for (size_t p = 0; p < pairs; p += 8) {
      F32 block[8];
      for (size_t k = 0; k < 8; ++k) block[k] = Load(b.lanes + (p + k) * kLaneRows);
      Transpose8x8(block);
      for (size_t r = 0; r < 8; ++r) StoreInt(b.query_codes + (i + r) * b.code_stride + 2 * p, AsInt(block[r]));
    }
  }
}

// panels[key / 16][pair of dimensions][key % 16], and what the scores need of each key.
void QuantizeKeys(const AttentionHead& head, const QuantizeSpec& spec, const AttentionBuffers& b) {
  const size_t d = head.head_size;
  const F32 size = F32::Broadcast(static_cast<float>(d));
  for (size_t j = 0; j < head.tokens; j += kLaneRows) {
    float* panel = b.key_panels + j / kTileColumns * (b.code_stride / 2) * kTileColumns + j % kTileColumns;
    const LaneRows rows = QuantizeLanes(head.key + j * head.stride, head.stride, head.tokens - j, d, spec, b.lanes,
                                        [&](size_t p, I32 codes) { StoreInt(panel + p * kTileColumns, codes); });
    Store(b.key_scale + j, rows.book.scale);
    Store(b.key_offset + j, rows.book.offset);
    Store(b.key_constant + j, Fma(rows.book.scale, rows.code_sum, size * rows.book.offset));
  }
}

// panels[dimension / 16][token / 16][token % 8][dimension % 16] = the codes of tokens t and t + 8 of a block of 16.
// Past the end stands the last token, as the probabilities there are 0. Returns the codebook of the whole block.
Codebook<F32> QuantizeValues(const AttentionHead& head, const QuantizeSpec& spec, const AttentionBuffers& b) {
  const size_t tokens = head.tokens, d = head.head_size, stride = head.stride;
  // Row by row: at the stride of a projection a column of rows falls into few sets of the cache.
  RangeSearch search;
  for (size_t t = 0; t < tokens; ++t) search.AddRow(head.value + t * stride, d);
  const Codebook<F32> book = MakeCodebook(spec, search.Whole());
  const size_t panel_floats = b.score_stride / 2 * kTileColumns;
  const auto row_of = [&](size_t t) { return head.value + (t < tokens ? t : tokens - 1) * stride; };
  WithCoder(spec, book, [&](const auto& coder) {
    for (size_t pair = 0; pair < b.score_stride / 2; ++pair) {
      const size_t t = pair / 8 * 16 + pair % 8;
      const float *low = row_of(t), *high = row_of(t + 8);
      float* entry = b.value_panels + pair * kTileColumns;
      size_t c = 0;
      for (; c + kTileColumns <= d; c += kTileColumns, entry += panel_floats) {
        StoreInt(entry, PairOf(coder.Codes(Load(low + c)), coder.Codes(Load(high + c))));
        StoreInt(entry + kFloats, PairOf(coder.Codes(Load(low + c + kFloats)), coder.Codes(Load(high + c + kFloats))));
      }
      for (; c < d; c += kFloats, entry += kFloats) {
        StoreInt(entry,
                 PairOf(coder.Codes(F32::LoadFirst(low + c, d - c)), coder.Codes(F32::LoadFirst(high + c, d - c))));
      }
    }
  });
  return book;
}

// Scores of one tile from the integer products; the formula is in attention.h.
template <class V, int R>
[[gnu::always_inline]] inline void WriteScores(const Tile<I32, R>& tile, const AttentionBuffers& b, size_t query,
                                               size_t key, float* scores) {
  const V scale = V::Load(b.key_scale + key), offset = V::Load(b.key_offset + key);
  const V constant = V::Load(b.key_constant + key);
  for (int r = 0; r < R; ++r) {
    const V products = Fma(scale, V::FromInts(tile.at[r]), offset * V::Broadcast(b.query_sum[query + r]));
    const V of_offset = V::Broadcast(b.query_offset[query + r]) * constant;
    Store(scores + r * b.score_stride + key, Fma(V::Broadcast(b.query_scale[query + r]), products, of_offset));
  }
}

// The lanes of a row's sums, still to be added up.
template <class V>
struct RowSums {
  V exponentials;
  decltype(ToInt(V{})) codes;
};

// Codes of the exponentials of a row; e <= exp(0) = 1, so no code passes `high`. (For an argument <= 0, Exp rounds
// 1 + y with y <= 0.)
template <class V>
RowSums<V> QuantizeExponentials(const float* x, size_t padded, float max, float high, int16_t* codes) {
  const V highest = V::Broadcast(max), scale = V::Broadcast(high), zero = V::Broadcast(0.0f);
  RowSums<V> sums = {zero, ToInt(zero)};
  const auto add = [&](V e, int16_t* to) {
    sums.exponentials = sums.exponentials + e;
    const auto of_row = ToInt(e * scale);
    sums.codes = sums.codes + of_row;
    StoreInt(to, PairsOf(of_row));
  };
  size_t j = 0;
  for (; j + 2 * kLanes <= padded; j += 2 * kLanes) {
    const Pair<V> e = Exp(Pair<V>::Load(x + j) - Pair<V>{highest, highest});
    add(e.first, codes + j);
    add(e.second, codes + j + kLanes);
  }
  if (j < padded) add(Exp(V::Load(x + j) - highest), codes + j);
  return sums;
}

// The same with a scale from training, which may lie below the probabilities.
template <class V>
auto QuantizeWithStaticScale(float* x, size_t padded, float max, const QuantizeSpec& spec, int16_t* codes) {
  const V highest = V::Broadcast(max);
  V sums = V::Broadcast(0.0f);
  for (size_t j = 0; j < padded; j += kLanes) {
    const V e = Exp(V::Load(x + j) - highest);
    Store(x + j, e);
    sums = sums + e;
  }
  const V total = V::Broadcast(SumLanes(sums));
  const Coder<V> coder(spec, MakeCodebook(spec, Range<V>{}));
  auto code_sums = ToInt(V::Broadcast(0.0f));
  for (size_t j = 0; j < padded; j += kLanes) {
    const auto of_row = coder.Codes(V::Load(x + j) / total);
    code_sums = code_sums + of_row;
    StoreInt(codes + j, PairsOf(of_row));
  }
  return code_sums;
}

// Scores to codes of probabilities, their scales and sums. Rows in step where there is something to wait for: the
// maximum and the sum of a row are chains of some 20 cycles after its last element.
template <class V>
void QuantizeProbabilities(const AttentionBuffers& b, size_t rows, size_t tokens, const QuantizeSpec& spec,
                           float* scale, float* code_sum) {
  float max[kQueryRows];
  RowSums<V> sums[kQueryRows];
  const float highest = CodeLimits<F32>(spec).highest;
  for (size_t r = 0; r < rows; ++r) max[r] = PadAndFindMax<V>(b.scores + r * b.score_stride, tokens);
  for (size_t r = 0; r < rows; ++r) {
    float* x = b.scores + r * b.score_stride;
    int16_t* codes = b.probability_codes + r * b.score_stride;
    if (spec.is_static) {
      sums[r].codes = QuantizeWithStaticScale<V>(x, b.score_stride, max[r], spec, codes);
    } else {
      sums[r] = QuantizeExponentials<V>(x, b.score_stride, max[r], highest, codes);
    }
  }
  for (size_t r = 0; r < rows; ++r) {
    scale[r] = spec.is_static ? spec.scale : 1.0f / SumLanes(sums[r].exponentials) / highest;
    code_sum[r] = static_cast<float>(SumInts(sums[r].codes));
  }
}

// The tiles are functions: inlined, it depends on what surrounds their loops whether GCC 12 keeps the accumulators in
// registers.
template <class Products, class V, int R>
[[gnu::noinline]] void ScoreTile(const AttentionBuffers& b, size_t pairs, size_t query, size_t key, float* scores) {
  const auto panel = reinterpret_cast<const int16_t*>(b.key_panels + key * (b.code_stride / 2));
  Tile<I32, R> tile;
  Products::MultiplyInt16(b.query_codes + query * b.code_stride, b.code_stride, panel, pairs, tile);
  WriteScores<V>(tile, b, query, key, scores);
}

// Scales and sums of the codes of probabilities, one for each row of the block.
struct ProbabilityRows {
  float scale[kQueryRows], code_sum[kQueryRows];
};

// Queries query + row and on, of a block that starts with `query`.
template <class Products, class V, int R>
[[gnu::noinline]] void ContextTile(const AttentionHead& head, const AttentionBuffers& b, const ProbabilityRows& rows,
                                   const Codebook<F32>& values, size_t query, size_t row, size_t column) {
  const auto panel = reinterpret_cast<const int16_t*>(b.value_panels + column * (b.score_stride / 2));
  Tile<I32, R> tile;
  Products::MultiplyInt16(b.probability_codes + row * b.score_stride, b.score_stride, panel, b.score_stride / 2, tile);
  const V scale = V::Broadcast(FirstLane(values.scale)), offset = V::Broadcast(FirstLane(values.offset));
  for (int r = 0; r < R; ++r) {
    const V value = Fma(scale, V::FromInts(tile.at[r]), offset * V::Broadcast(rows.code_sum[row + r]));
    float* context = head.context + (query + row + r) * head.context_stride + column;
    StoreFirst(context, head.head_size - column, V::Broadcast(rows.scale[row + r]) * value);
  }
}

// Up to kQueryRows queries. Each panel meets all their tiles while it is in L1.
template <class Products, class V>
void AttendRows(const AttentionHead& head, const QuantizeSpec& probabilities, const AttentionBuffers& b, size_t query,
                size_t rows, const Codebook<F32>& values) {
  const size_t tokens = head.tokens, d = head.head_size;
  for (size_t key = 0; key < tokens; key += kTileColumns) {
    ForTiles<Products::kRows>(rows, [&](size_t row, auto height) {
      ScoreTile<Products, V, decltype(height)::value>(b, (d + 1) / 2, query + row, key,
                                                      b.scores + row * b.score_stride);
    });
  }
  ProbabilityRows of_rows;
  TimeSoftmax(head.clock,
              [&] { QuantizeProbabilities<V>(b, rows, tokens, probabilities, of_rows.scale, of_rows.code_sum); });
  for (size_t column = 0; column < d; column += kTileColumns) {
    ForTiles<Products::kRows>(rows, [&](size_t row, auto height) {
      ContextTile<Products, V, decltype(height)::value>(head, b, of_rows, values, query, row, column);
    });
  }
}

// Products: MultiplyInt16 (avx2_tiles.h) for tiles of up to kRows. V: the vector of kLanes floats in which scores,
// softmax and context are computed, with PairsOf its integers: lanes i and i + 8 as a pair.
template <class Products, class V>
void Attend(const AttentionHead& head, const AttentionSpecs& specs, void* scratch) {
  static_assert(kQueryRows % Products::kRows == 0, "whole tiles");
  size_t bytes;
  const AttentionBuffers b = LayOutAttention(scratch, head.tokens, head.head_size, &bytes);
  QuantizeQueries(head, specs.query, b);
  QuantizeKeys(head, specs.key, b);
  const Codebook<F32> values = QuantizeValues(head, specs.value, b);
  QuantizeSpec probabilities = specs.probabilities;
  probabilities.clip = 0.0f;
  // Blocks of nearly equal height, as tiles are.
  size_t blocks = (head.queries + kQueryRows - 1) / kQueryRows;
  for (size_t query = 0, rows; query < head.queries; query += rows, --blocks) {
    rows = (head.queries - query + blocks - 1) / blocks;
    AttendRows<Products, V>(head, probabilities, b, query, rows, values);
  }
}

}  // namespace
}  // namespace bitpress::avx2
