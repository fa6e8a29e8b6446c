// 8-bit products: queries, keys and values are quantized once per call, then six queries at a time go through scores,
// softmax and context.
//
// Codes lie as pairs of int16 in 4 bytes, for `vpmaddwd`: 16 products an instruction, exact. [Bytes through
// `vpmaddubsw`: 0..255 times -128..127 saturates its int16 sums; with the sign of one code moved to the other
// (`vpsignb`) a product of 32 takes four instructions, as two `vpmaddwd` and two additions do.] As integer sums are
// exact in any order, pairs are formed as it is cheapest: of neighbouring dimensions, and of tokens t and t + 8.
#include "kernels/activation/polynomials.h"
#include "kernels/attention/scratch.h"
#include "kernels/quantize/avx2_coder.h"
#include "kernels/simd/avx2_pair.h"
#include "kernels/simd/avx2_tiles.h"
#include "kernels/simd/avx2_transpose.h"

namespace bitpress::avx2 {
namespace {

static_assert(kQueryRows == kTileRows && kAttentionPanel == kTileColumns, "a tile is six queries by one panel");
static_assert(kLaneRows == kFloats && kAttentionPanel % kLaneRows == 0, "a row a lane, whole registers in a panel");

// Two codes 0..255 of each lane as a pair of int16.
I32 PairOf(I32 low, I32 high) { return {_mm256_or_si256(low.v, _mm256_slli_epi32(high.v, 16))}; }

F32 LoadFirst(const float* p, size_t n) { return n >= kFloats ? Load(p) : LoadMasked(p, TailMask(n)); }

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
      for (size_t r = 0; r < kLaneRows; ++r) block[r] = r < rows ? LoadFirst(x + r * stride + i, d - i) : Zero();
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
  for (size_t i = 0; i < head.tokens; i += kLaneRows) {
    // Pair p overwrites what was read at dimensions 2p and before.
    const LaneRows rows = QuantizeLanes(head.query + i * head.stride, head.stride, head.tokens - i, d, spec, b.lanes,
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

// panels[dimension / 16][token / 16][token % 8][dimension % 16] = the codes of tokens t and t + 8 of a block of 16;
// those past the end are 0. Returns the codebook of the whole block.
Codebook<F32> QuantizeValues(const AttentionHead& head, const QuantizeSpec& spec, const AttentionBuffers& b) {
  const size_t tokens = head.tokens, d = head.head_size, stride = head.stride;
  RangeSearch search;
  for (size_t c = 0; c < d; c += kFloats) {
    const I32 mask = TailMask(d - c);
    for (size_t t = 0; t < tokens; ++t) {
      // The first element in the lanes past the end: it changes no minimum or maximum.
      const float* x = head.value + t * stride + c;
      search.Add(d - c >= kFloats ? Load(x) : SelectMask(mask, LoadMasked(x, mask), F32::Broadcast(*x)));
    }
  }
  const Codebook<F32> book = MakeCodebook(spec, search.Whole());
  WithCoder(spec, book, [&](const auto& coder) {
    for (size_t c = 0; c < d; c += kFloats) {
      float* panel = b.value_panels + c / kTileColumns * (b.score_stride / 2) * kTileColumns + c % kTileColumns;
      const auto codes = [&](size_t t) {
        return t < tokens ? coder.Codes(LoadFirst(head.value + t * stride + c, d - c)) : I32{_mm256_setzero_si256()};
      };
      for (size_t t = 0; t < tokens; t += 16) {
        for (size_t i = 0; i < 8; ++i, panel += kTileColumns) StoreInt(panel, PairOf(codes(t + i), codes(t + i + 8)));
      }
    }
  });
  return book;
}

// Scores of one tile from the integer products; the formula is in attention.h.
template <int R>
[[gnu::always_inline]] inline void WriteScores(const Tile<I32, R>& tile, const AttentionBuffers& b, size_t query,
                                               size_t key) {
  for (size_t half = 0; half < 2; ++half) {
    const size_t j = key + half * kFloats;
    const F32 scale = Load(b.key_scale + j), offset = Load(b.key_offset + j), constant = Load(b.key_constant + j);
    for (int r = 0; r < R; ++r) {
      const F32 products = Fma(scale, ToFloat(tile.at[r][half]), offset * F32::Broadcast(b.query_sum[query + r]));
      const F32 of_offset = F32::Broadcast(b.query_offset[query + r]) * constant;
      Store(b.scores + r * b.score_stride + j, Fma(F32::Broadcast(b.query_scale[query + r]), products, of_offset));
    }
  }
}

// Codes of the softmax of n scores, the row padded to whole panels; returns scale and sum of the codes.
struct ProbabilityRow {
  F32 scale, code_sum;
};
ProbabilityRow QuantizeProbabilities(float* x, size_t n, const QuantizeSpec& spec, int16_t* codes) {
  const size_t padded = RoundUp(n, kLanes);
  // -inf past the end: exp gives the +0 that the summation order wants there, the code 0, and the maximum ignores it.
  for (size_t j = n; j < padded; ++j) x[j] = -__builtin_inff();
  F32x2 highest = Load2(x);
  for (size_t j = kLanes; j < padded; j += kLanes) highest = Max(Load2(x + j), highest);
  const F32x2 max = F32x2::Broadcast(ReduceMax(Max(highest.first, highest.second)));
  F32x2 sums = {Zero(), Zero()};
  I32 code_sum = {_mm256_setzero_si256()};
  // e <= exp(0) = 1, so no code passes `high`. (Exp rounds 1 + y with y <= 0 for arguments <= 0.)
  const F32 high = CodeLimits<F32>(spec).high;
  const auto code = [&](F32x2 e, int16_t* to) {
    const I32 low = {_mm256_cvtps_epi32((e.first * high).v)}, up = {_mm256_cvtps_epi32((e.second * high).v)};
    code_sum = code_sum + (low + up);
    StoreInt(to, PairOf(low, up));
  };
  size_t j = 0;
  for (; j + 2 * kLanes <= padded; j += 2 * kLanes) {
    const F32x4 e = Exp(Load4(x + j) - F32x4{max, max});
    sums = sums + e.first;
    sums = sums + e.second;
    if (spec.is_static) {
      Store4(x + j, e);
    } else {
      code(e.first, codes + j);
      code(e.second, codes + j + kLanes);
    }
  }
  if (j < padded) {
    const F32x2 e = Exp(Load2(x + j) - max);
    sums = sums + e;
    if (spec.is_static) {
      Store2(x + j, e);
    } else {
      code(e, codes + j);
    }
  }
  const F32 total = F32::Broadcast(SumLanes(sums.first, sums.second));
  F32 scale = F32::Broadcast(1.0f) / total / high;
  if (spec.is_static) {
    scale = F32::Broadcast(spec.scale);
    const Coder coder(spec, MakeCodebook(spec, Range<F32>{}));
    for (j = 0; j < padded; j += kLanes) {
      const I32 low = coder.Codes(Load(x + j) / total), up = coder.Codes(Load(x + j + kFloats) / total);
      code_sum = code_sum + (low + up);
      StoreInt(codes + j, PairOf(low, up));
    }
  }
  return {scale, F32::Broadcast(static_cast<float>(SumInts(code_sum)))};
}

template <int R>
void AttendRows(const AttentionHead& head, const QuantizeSpec& probabilities, const AttentionBuffers& b, size_t query,
                const Codebook<F32>& values) {
  const size_t tokens = head.tokens, d = head.head_size;
  Tile<I32, R> tile;
  for (size_t key = 0; key < tokens; key += kTileColumns) {
    const float* panel = b.key_panels + key * (b.code_stride / 2);
    MultiplyInt16(b.query_codes + query * b.code_stride, b.code_stride, reinterpret_cast<const int16_t*>(panel),
                  (d + 1) / 2, tile);
    WriteScores(tile, b, query, key);
  }
  ProbabilityRow rows[R];
  for (int r = 0; r < R; ++r) {
    rows[r] = QuantizeProbabilities(b.scores + r * b.score_stride, tokens, probabilities,
                                    b.probability_codes + r * b.score_stride);
  }
  for (size_t column = 0; column < d; column += kTileColumns) {
    const float* panel = b.value_panels + column * (b.score_stride / 2);
    MultiplyInt16(b.probability_codes, b.score_stride, reinterpret_cast<const int16_t*>(panel), b.score_stride / 2,
                  tile);
    for (int r = 0; r < R; ++r) {
      for (size_t half = 0; half < 2; ++half) {
        const size_t c = column + half * kFloats;
        const F32 value = Fma(values.scale, ToFloat(tile.at[r][half]), values.offset * rows[r].code_sum);
        StoreFirst(head.context + (query + r) * head.context_stride + c, d > c ? d - c : 0, rows[r].scale * value);
      }
    }
  }
}

}  // namespace

void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch) {
  size_t bytes;
  const AttentionBuffers b = LayOutAttention(scratch, head.tokens, head.head_size, &bytes);
  QuantizeQueries(head, specs.query, b);
  QuantizeKeys(head, specs.key, b);
  const Codebook<F32> values = QuantizeValues(head, specs.value, b);
  QuantizeSpec probabilities = specs.probabilities;
  probabilities.clip = 0.0f;
  ForTiles(head.tokens, [&](size_t query, auto height) {
    AttendRows<decltype(height)::value>(head, probabilities, b, query, values);
  });
}

}  // namespace bitpress::avx2
