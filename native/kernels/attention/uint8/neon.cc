// 8-bit products: queries, keys and values are quantized once per call, then a block of queries goes through scores,
// softmax and context, in tiles of four.
//
// Codes are bytes, for `udot`: 16 products an instruction, exact in int32 (kMaxAttentionInputs). Four neighbouring
// dimensions of a key, and four neighbouring tokens of a dimension of the values, make the 4 bytes of a column.
#include "kernels/activation/polynomials.h"
#include "kernels/attention/neon_pack.h"
#include "kernels/attention/scratch.h"
#include "kernels/quantize/neon_coder.h"
#include "kernels/quantize/quantize.h"

namespace bitpress::neondot {
namespace {

static_assert(kQueryRows % kTileRows == 0 && kAttentionPanel == kTileColumns, "whole tiles");
static_assert(kAttentionPanel % kRowStep == 0, "rows of codes are whole registers");

// The buffers of scratch.h have room for two bytes a code of a row and four a code of a panel; here each takes one, so
// that codes that are to become panels lie behind these.
struct Codes {
  uint8_t *query, *probability;
  uint8_t *key_panels, *value_panels;
  uint8_t *key_rows, *value_rows;

  explicit Codes(const AttentionBuffers& b)
      : query(reinterpret_cast<uint8_t*>(b.query_codes)),
        probability(reinterpret_cast<uint8_t*>(b.probability_codes)),
        key_panels(reinterpret_cast<uint8_t*>(b.key_panels)),
        value_panels(reinterpret_cast<uint8_t*>(b.value_panels)),
        key_rows(key_panels + b.score_stride * b.code_stride),
        value_rows(value_panels + b.score_stride * b.code_stride) {}
};

// Codes, zero past the head's dimensions, and what the scores need of each query.
void QuantizeQueries(const AttentionHead& head, const QuantizeSpec& spec, const AttentionBuffers& b, uint8_t* codes) {
  const float root = FirstLane(Sqrt(F32::Broadcast(static_cast<float>(head.head_size))));
  for (size_t i = 0; i < head.queries; ++i) {
    int32_t sum;
    QuantizeRows(head.query + i * head.stride, head.stride, 1, head.head_size, spec, codes + i * b.code_stride,
                 b.code_stride, b.query_scale + i, b.query_offset + i, &sum);
    b.query_scale[i] /= root;
    b.query_offset[i] /= root;
    b.query_sum[i] = static_cast<float>(sum);
  }
}

// panels[key / 16][dimension / 4][key % 16][dimension % 4], and what the scores need of each key.
void QuantizeKeys(const AttentionHead& head, const QuantizeSpec& spec, const AttentionBuffers& b, const Codes& codes) {
  const auto size = static_cast<float>(head.head_size);
  for (size_t j = 0; j < head.tokens; ++j) {
    int32_t sum;
    QuantizeRows(head.key + j * head.stride, head.stride, 1, head.head_size, spec, codes.key_rows + j * b.code_stride,
                 b.code_stride, b.key_scale + j, b.key_offset + j, &sum);
    b.key_constant[j] = __builtin_fmaf(b.key_scale[j], static_cast<float>(sum), size * b.key_offset[j]);
  }
  for (size_t j = 0; j < head.tokens; j += kTileColumns) {
    const uint8_t* rows = codes.key_rows + j * b.code_stride;
    PackColumns(head.tokens - j, b.code_stride / kStepInputs, codes.key_panels + j * b.code_stride,
                [&](size_t row, size_t step) {
                  return I32{vreinterpretq_s32_u8(vld1q_u8(rows + row * b.code_stride + step * kStepInputs))};
                });
  }
}

struct ValueRange {
  float scale, offset;
};
// panels[dimension / 16][token / 4][dimension % 16][token % 4]; tokens past the last are zeros.
ValueRange QuantizeValues(const AttentionHead& head, const QuantizeSpec& spec, const AttentionBuffers& b,
                          const Codes& codes) {
  ValueRange range;
  QuantizeBlock(head.value, head.stride, head.tokens, head.head_size, spec, codes.value_rows, b.code_stride,
                &range.scale, &range.offset);
  for (size_t column = 0; column < head.head_size; column += kTileColumns) {
    for (size_t token = 0; token < b.score_stride; token += kStepInputs) {
      const auto row = [&](size_t t) {
        return t < head.tokens ? vld1q_u8(codes.value_rows + t * b.code_stride + column) : vdupq_n_u8(0);
      };
      const uint8x16x4_t four = {{row(token), row(token + 1), row(token + 2), row(token + 3)}};
      vst4q_u8(codes.value_panels + column * b.score_stride + token * kTileColumns, four);
    }
  }
  return range;
}

// Scores to codes of probabilities, zero past the last token: their scale and their sum.
struct RowCodes {
  float scale, code_sum;
};
RowCodes QuantizeProbabilities(float* x, size_t tokens, size_t padded, const QuantizeSpec& spec, uint8_t* codes) {
  // -inf past the end: exp gives the +0 that the summation order wants there, the code 0, and the maximum ignores it.
  for (size_t j = tokens; j < padded; ++j) x[j] = -__builtin_inff();
  F32x16 highest = F32x16::Broadcast(x[0]);
  for (size_t j = 0; j < padded; j += kLanes) highest = Max(Load(x + j), highest);
  const F32x16 max = F32x16::Broadcast(ReduceMax(highest));
  const float high = CodeLimits<F32>(spec).highest;
  F32x16 sum = Zero();
  uint32x4_t code_sum = vdupq_n_u32(0);
  const auto store = [&](size_t j, I32x16 c) {
    const uint8x16_t bytes = Narrow(c);
    vst1q_u8(codes + j, bytes);
    code_sum = vdotq_u32(code_sum, bytes, vdupq_n_u8(1));
  };
  for (size_t j = 0; j < padded; j += kLanes) {
    const F32x16 e = Exp(Load(x + j) - max);
    sum = sum + e;
    // e <= exp(0) = 1, so no code passes `high`; NaN gives 0.
    if (spec.is_static) {
      Store(x + j, e);
    } else {
      store(j, RoundToInt(e * F32x16::Broadcast(high)));
    }
  }
  const float total = SumLanes(sum);
  if (spec.is_static) {  // the scale from training may lie below the probabilities
    const Coder coder(spec, MakeCodebook(spec, Range<F32>{}));
    for (size_t j = 0; j < padded; j += kLanes) store(j, coder.Codes(Load(x + j) / F32x16::Broadcast(total)));
  }
  return {spec.is_static ? spec.scale : 1.0f / total / high, static_cast<float>(vaddvq_u32(code_sum))};
}

// Scores of one tile from the integer products; the formula is in attention.h.
template <int R>
void WriteScores(const I32x16 (&tile)[R], const AttentionBuffers& b, size_t query, size_t key, float* scores) {
  const F32x16 scale = Load(b.key_scale + key), offset = Load(b.key_offset + key),
               constant = Load(b.key_constant + key);
  for (int r = 0; r < R; ++r) {
    const F32x16 products = Fma(scale, ToFloat(tile[r]), offset * F32x16::Broadcast(b.query_sum[query + r]));
    Store(scores + r * b.score_stride + key, Fma(F32x16::Broadcast(b.query_scale[query + r]), products,
                                                 F32x16::Broadcast(b.query_offset[query + r]) * constant));
  }
}

// Up to kQueryRows queries. Each panel meets all their tiles while it is in L1.
void AttendRows(const AttentionHead& head, const QuantizeSpec& probabilities, const AttentionBuffers& b,
                const Codes& codes, size_t query, size_t rows, ValueRange values) {
  const size_t tokens = head.tokens, d = head.head_size;
  for (size_t key = 0; key < tokens; key += kTileColumns) {
    ForTiles(rows, [&](size_t row, auto height) {
      I32x16 tile[decltype(height)::value];
      for (I32x16& t : tile) t = ZeroInts();
      MultiplyBytes<UnsignedDot>(codes.query + (query + row) * b.code_stride, b.code_stride,
                                 codes.key_panels + key * b.code_stride, b.code_stride, tile);
      WriteScores(tile, b, query + row, key, b.scores + row * b.score_stride);
    });
  }
  RowCodes of_row[kQueryRows];
  TimeSoftmax(head.clock, [&] {
    for (size_t r = 0; r < rows; ++r) {
      of_row[r] = QuantizeProbabilities(b.scores + r * b.score_stride, tokens, b.score_stride, probabilities,
                                        codes.probability + r * b.score_stride);
    }
  });
  for (size_t column = 0; column < d; column += kTileColumns) {
    ForTiles(rows, [&](size_t row, auto height) {
      constexpr int R = decltype(height)::value;
      I32x16 tile[R];
      for (I32x16& t : tile) t = ZeroInts();
      MultiplyBytes<UnsignedDot>(codes.probability + row * b.score_stride, b.score_stride,
                                 codes.value_panels + column * b.score_stride, b.score_stride, tile);
      for (int r = 0; r < R; ++r) {
        const RowCodes& p = of_row[row + r];
        const F32x16 value =
            Fma(F32x16::Broadcast(values.scale), ToFloat(tile[r]), F32x16::Broadcast(values.offset * p.code_sum));
        StoreFirst(head.context + (query + row + r) * head.context_stride + column, d - column,
                   F32x16::Broadcast(p.scale) * value);
      }
    });
  }
}

}  // namespace

void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch) {
  size_t bytes;
  const AttentionBuffers b = LayOutAttention(scratch, head.tokens, head.head_size, &bytes);
  const Codes codes(b);
  QuantizeQueries(head, specs.query, b, codes.query);
  QuantizeKeys(head, specs.key, b, codes);
  const ValueRange values = QuantizeValues(head, specs.value, b, codes);
  QuantizeSpec probabilities = specs.probabilities;
  probabilities.clip = 0.0f;
  for (size_t query = 0; query < head.queries; query += kQueryRows) {
    const size_t rest = head.queries - query;
    AttendRows(head, probabilities, b, codes, query, rest < kQueryRows ? rest : kQueryRows, values);
  }
}

}  // namespace bitpress::neondot
