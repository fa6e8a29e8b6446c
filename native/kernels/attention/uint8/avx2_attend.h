// 8-bit products: queries, keys and values are quantized once per call, then twelve queries at a time go through
// scores, softmax and context, so that a panel of keys or values serves several register tiles while it is in L1. What
// an ISA multiplies a tile with is its own.
//
// Codes lie in words of 4 bytes, as the ISA multiplies them (`Words` below): as pairs of int16 for `vpmaddwd` and
// `vpdpwssd`, 16 products an instruction of 256 bits, or as four bytes for `vpdpbusd`. All are exact. [AVX2: bytes
// through `vpmaddubsw`: 0..255 times -128..127 saturates its int16 sums. With the sign of one code moved to the other
// (`vpsignb`) 32 products take sign, `vpmaddubsw`, `vpmaddwd` and an addition: four operations, as here.]
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

// How codes lie in words, a policy with
//   kCodes, kRows            codes of a word; rows of a tile
//   Of, SignedOf             the word of some codes: of queries and probabilities; of keys and values, the other factor
//   TokenOf(word, i)         which token's code stands at i in a word of tokens: sums are exact in any order, so that
//                            which makes words of probabilities cheap
//   StoreRow(row, j, codes)  codes of the probabilities of tokens j to j + kLanes - 1, as words
//   Multiply                 sums of the products of both kinds of words
//   ToProducts(sums, sum)    what they are as sums of products of codes; sum: of the codes of that row
template <class Products>
struct PairWords {
  static constexpr size_t kCodes = 2;
  static constexpr int kRows = Products::kRows;

  static I32 Of(const I32 (&codes)[kCodes]) { return PairOf(codes[0], codes[1]); }
  static I32 SignedOf(const I32 (&codes)[kCodes]) { return Of(codes); }
  static size_t TokenOf(size_t word, size_t i) { return word / 8 * 16 + word % 8 + 8 * i; }
  template <class I>
  static void StoreRow(int16_t* row, size_t j, I codes) {
    StoreInt(row + j, PairsOf(codes));
  }
  template <int R>
  [[gnu::always_inline]] static void Multiply(const int16_t* a, size_t lda, const float* panel, size_t words,
                                              Tile<I32, R>& tile) {
    Products::MultiplyInt16(a, lda, reinterpret_cast<const int16_t*>(panel), words, tile);
  }
  template <class V>
  static V ToProducts(const void* sums, float) {
    return V::FromInts(sums);
  }
};

// Eight rows, one a lane: no search needs a reduction within a register, and scales are computed eight at a time.
struct LaneRows {
  Codebook<F32> book;
  F32 code_sum;
};

// Codes of up to eight rows of d floats; word(i, the codes of word i), 0 past the dimensions. Missing rows count as
// zeros.
template <size_t kCodes, class F>
LaneRows QuantizeLanes(const float* x, size_t stride, size_t rows, size_t d, const QuantizeSpec& spec, float* lanes,
                       F word) {
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
    for (size_t k = 0; k < d; k += kCodes) {
      I32 codes[kCodes];
      for (size_t i = 0; i < kCodes; ++i) {
        codes[i] = k + i < d ? coder.Codes(Load(lanes + (k + i) * kLaneRows)) : I32{_mm256_setzero_si256()};
        sum = sum + codes[i];
      }
      word(k / kCodes, codes);
    }
  });
  return {book, ToFloat(sum)};
}

// query_codes[token][dimension], and what the scores need of each query.
template <class Words>
void QuantizeQueries(const AttentionHead& head, const QuantizeSpec& spec, const AttentionBuffers& b) {
  const size_t d = head.head_size, words = (d + Words::kCodes - 1) / Words::kCodes;
  const F32 root = {_mm256_sqrt_ps(_mm256_set1_ps(static_cast<float>(d)))};
  for (size_t i = 0; i < head.queries; i += kLaneRows) {
    // A word overwrites what was read at its own codes or before.
    const LaneRows rows = QuantizeLanes<Words::kCodes>(
        head.query + i * head.stride, head.stride, head.queries - i, d, spec, b.lanes,
        [&](size_t word, const auto& codes) { StoreInt(b.lanes + word * kLaneRows, Words::Of(codes)); });
    Store(b.query_scale + i, rows.book.scale / root);
    Store(b.query_offset + i, rows.book.offset / root);
    Store(b.query_sum + i, rows.code_sum);
    for (size_t p = 0; p < words; p += 8) {
      F32 block[8];
      for (size_t k = 0; k < 8; ++k) block[k] = Load(b.lanes + (p + k) * kLaneRows);
      Transpose8x8(block);
      for (size_t r = 0; r < 8; ++r) StoreInt(b.query_codes + (i + r) * b.code_stride + 2 * p, AsInt(block[r]));
    }
  }
}

// panels[key / 16][word of dimensions][key % 16], and what the scores need of each key.
template <class Words>
void QuantizeKeys(const AttentionHead& head, const QuantizeSpec& spec, const AttentionBuffers& b) {
  const size_t d = head.head_size;
  const F32 size = F32::Broadcast(static_cast<float>(d));
  for (size_t j = 0; j < head.tokens; j += kLaneRows) {
    float* panel = b.key_panels + j / kTileColumns * (b.code_stride / 2) * kTileColumns + j % kTileColumns;
    const LaneRows rows = QuantizeLanes<Words::kCodes>(
        head.key + j * head.stride, head.stride, head.tokens - j, d, spec, b.lanes,
        [&](size_t word, const auto& codes) { StoreInt(panel + word * kTileColumns, Words::SignedOf(codes)); });
    Store(b.key_scale + j, rows.book.scale);
    Store(b.key_offset + j, rows.book.offset);
    Store(b.key_constant + j, Fma(rows.book.scale, rows.code_sum, size * rows.book.offset));
  }
}

// panels[dimension / 16][word of tokens][dimension % 16]. Past the end stands the last token, as the probabilities
// there are 0. Returns the codebook of the whole block.
template <class Words>
Codebook<F32> QuantizeValues(const AttentionHead& head, const QuantizeSpec& spec, const AttentionBuffers& b) {
  const size_t tokens = head.tokens, d = head.head_size, stride = head.stride;
  // Row by row: at the stride of a projection a column of rows falls into few sets of the cache.
  RangeSearch search;
  for (size_t t = 0; t < tokens; ++t) search.AddRow(head.value + t * stride, d);
  const Codebook<F32> book = MakeCodebook(spec, search.Whole());
  const size_t panel_floats = b.score_stride / 2 * kTileColumns;
  WithCoder(spec, book, [&](const auto& coder) {
    for (size_t word = 0; word < b.score_stride / Words::kCodes; ++word) {
      const float* rows[Words::kCodes];
      for (size_t i = 0; i < Words::kCodes; ++i) {
        const size_t t = Words::TokenOf(word, i);
        rows[i] = head.value + (t < tokens ? t : tokens - 1) * stride;
      }
      const auto store = [&](float* entry, const auto& load) {
        I32 codes[Words::kCodes];
        for (size_t i = 0; i < Words::kCodes; ++i) codes[i] = coder.Codes(load(rows[i]));
        StoreInt(entry, Words::SignedOf(codes));
      };
      for (size_t c = 0; c < d; c += kFloats) {
        float* entry = b.value_panels + c / kTileColumns * panel_floats + word * kTileColumns + c % kTileColumns;
        if (c + kFloats <= d) {
          store(entry, [&](const float* row) { return Load(row + c); });
        } else {
          store(entry, [&](const float* row) { return F32::LoadFirst(row + c, d - c); });
        }
      }
    }
  });
  return book;
}

// Scores of one tile from the integer products; the formula is in attention.h.
template <class Words, class V, int R>
[[gnu::always_inline]] inline void WriteScores(const Tile<I32, R>& tile, const AttentionBuffers& b, size_t query,
                                               size_t key, float* scores) {
  const V scale = V::Load(b.key_scale + key), offset = V::Load(b.key_offset + key);
  const V constant = V::Load(b.key_constant + key);
  for (int r = 0; r < R; ++r) {
    const float sum = b.query_sum[query + r];
    const V products = Fma(scale, Words::template ToProducts<V>(tile.at[r], sum), offset * V::Broadcast(sum));
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
template <class Words, class V>
RowSums<V> QuantizeExponentials(const float* x, size_t padded, float max, float high, int16_t* codes) {
  const V highest = V::Broadcast(max), scale = V::Broadcast(high), zero = V::Broadcast(0.0f);
  RowSums<V> sums = {zero, ToInt(zero)};
  const auto add = [&](V e, size_t j) {
    sums.exponentials = sums.exponentials + e;
    const auto of_row = ToInt(e * scale);
    sums.codes = sums.codes + of_row;
    Words::StoreRow(codes, j, of_row);
  };
  size_t j = 0;
  for (; j + 2 * kLanes <= padded; j += 2 * kLanes) {
    const Pair<V> e = Exp(Pair<V>::Load(x + j) - Pair<V>{highest, highest});
    add(e.first, j);
    add(e.second, j + kLanes);
  }
  if (j < padded) add(Exp(V::Load(x + j) - highest), j);
  return sums;
}

// The same with a scale from training, which may lie below the probabilities.
template <class Words, class V>
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
    Words::StoreRow(codes, j, of_row);
  }
  return code_sums;
}

// Scores to codes of probabilities, their scales and sums. Rows in step where there is something to wait for: the
// maximum and the sum of a row are chains of some 20 cycles after its last element.
template <class Words, class V>
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
      sums[r].codes = QuantizeWithStaticScale<Words, V>(x, b.score_stride, max[r], spec, codes);
    } else {
      sums[r] = QuantizeExponentials<Words, V>(x, b.score_stride, max[r], highest, codes);
    }
  }
  for (size_t r = 0; r < rows; ++r) {
    scale[r] = spec.is_static ? spec.scale : 1.0f / SumLanes(sums[r].exponentials) / highest;
    code_sum[r] = static_cast<float>(SumInts(sums[r].codes));
  }
}

// The tiles are functions: inlined, it depends on what surrounds their loops whether GCC 12 keeps the accumulators in
// registers.
template <class Words, class V, int R>
[[gnu::noinline]] void ScoreTile(const AttentionBuffers& b, size_t words, size_t query, size_t key, float* scores) {
  Tile<I32, R> tile;
  Words::template Multiply<R>(b.query_codes + query * b.code_stride, b.code_stride,
                              b.key_panels + key * (b.code_stride / 2), words, tile);
  WriteScores<Words, V>(tile, b, query, key, scores);
}

// Scales and sums of the codes of probabilities, one for each row of the block.
struct ProbabilityRows {
  float scale[kQueryRows], code_sum[kQueryRows];
};

// Queries query + row and on, of a block that starts with `query`.
template <class Words, class V, int R>
[[gnu::noinline]] void ContextTile(const AttentionHead& head, const AttentionBuffers& b, const ProbabilityRows& rows,
                                   const Codebook<F32>& values, size_t query, size_t row, size_t column) {
  Tile<I32, R> tile;
  Words::template Multiply<R>(b.probability_codes + row * b.score_stride, b.score_stride,
                              b.value_panels + column * (b.score_stride / 2), b.score_stride / Words::kCodes, tile);
  const V scale = V::Broadcast(FirstLane(values.scale)), offset = V::Broadcast(FirstLane(values.offset));
  for (int r = 0; r < R; ++r) {
    const float sum = rows.code_sum[row + r];
    const V value = Fma(scale, Words::template ToProducts<V>(tile.at[r], sum), offset * V::Broadcast(sum));
    float* context = head.context + (query + row + r) * head.context_stride + column;
    StoreFirst(context, head.head_size - column, V::Broadcast(rows.scale[row + r]) * value);
  }
}

// Up to kQueryRows queries. Each panel meets all their tiles while it is in L1.
template <class Words, class V>
void AttendRows(const AttentionHead& head, const QuantizeSpec& probabilities, const AttentionBuffers& b, size_t query,
                size_t rows, const Codebook<F32>& values) {
  const size_t tokens = head.tokens, d = head.head_size;
  for (size_t key = 0; key < tokens; key += kTileColumns) {
    ForTiles<Words::kRows>(rows, [&](size_t row, auto height) {
      ScoreTile<Words, V, decltype(height)::value>(b, (d + Words::kCodes - 1) / Words::kCodes, query + row, key,
                                                   b.scores + row * b.score_stride);
    });
  }
  ProbabilityRows of_rows;
  TimeSoftmax(head.clock, [&] {
    QuantizeProbabilities<Words, V>(b, rows, tokens, probabilities, of_rows.scale, of_rows.code_sum);
  });
  for (size_t column = 0; column < d; column += kTileColumns) {
    ForTiles<Words::kRows>(rows, [&](size_t row, auto height) {
      ContextTile<Words, V, decltype(height)::value>(head, b, of_rows, values, query, row, column);
    });
  }
}

// V: the vector of kLanes floats in which scores, softmax and context are computed. PairWords wants PairsOf its
// integers: lanes i and i + 8 as a pair.
template <class Words, class V>
void Attend(const AttentionHead& head, const AttentionSpecs& specs, void* scratch) {
  static_assert(kQueryRows % Words::kRows == 0, "whole tiles");
  size_t bytes;
  const AttentionBuffers b = LayOutAttention(scratch, head.tokens, head.head_size, &bytes);
  QuantizeQueries<Words>(head, specs.query, b);
  QuantizeKeys<Words>(head, specs.key, b);
  const Codebook<F32> values = QuantizeValues<Words>(head, specs.value, b);
  QuantizeSpec probabilities = specs.probabilities;
  probabilities.clip = 0.0f;
  // Blocks of nearly equal height, as tiles are.
  size_t blocks = (head.queries + kQueryRows - 1) / kQueryRows;
  for (size_t query = 0, rows; query < head.queries; query += rows, --blocks) {
    rows = (head.queries - query + blocks - 1) / blocks;
    AttendRows<Words, V>(head, probabilities, b, query, rows, values);
  }
}

}  // namespace
}  // namespace bitpress::avx2
