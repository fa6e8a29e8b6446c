// Six queries at a time against keys and values packed once per call.
//
// Keys become panels of 16 (score tiles of 6 x 16), values panels of 16 head dimensions (context tiles of 6 x 16). A
// panel entry is 4 bytes, a float or two int16 codes, so both kinds of product share the packing and the flow:
// scores of six queries against all keys, softmax (and codes) of each row, context.
#include "kernels/activation/polynomials.h"
#include "kernels/attention/scratch.h"
#include "kernels/quantize/quantize.h"
#include "kernels/simd/avx2_tiles.h"

namespace bitpress::avx2 {
namespace {

static_assert(kQueryRows == kTileRows && kAttentionPanel == kTileColumns, "a tile is six queries by one panel");

// Rows a[0..7] of eight floats become columns.
void Transpose8x8(F32 a[8]) {
  __m256 t[8], u[8];
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(a[2 * i].v, a[2 * i + 1].v);
    t[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i].v, a[2 * i + 1].v);
  }
  for (int i = 0; i < 2; ++i) {
    u[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    u[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xEE);
    u[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    u[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    a[i].v = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    a[i + 4].v = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}

// panels[key / 16][entry][key % 16] = entry `entry` of key `key`, entries padded to a multiple of 8, keys of 16.
// load(key, entry) gives eight entries of a key.
template <class L>
void PackKeyPanels(size_t keys, size_t entries, float* panels, L load) {
  const size_t padded = RoundUp(entries, 8);
  for (size_t key = 0; key < RoundUp(keys, kTileColumns); key += 8) {
    float* panel = panels + key / kTileColumns * padded * kTileColumns + key % kTileColumns;
    for (size_t entry = 0; entry < padded; entry += 8) {
      F32 block[8];
      for (size_t i = 0; i < 8; ++i) block[i] = key + i < keys ? load(key + i, entry) : Zero();
      Transpose8x8(block);
      for (size_t i = 0; i < 8; ++i) Store(panel + (entry + i) * kTileColumns, block[i]);
    }
  }
}

// Sixteen codes as int16.
I32 Widen(const uint8_t* codes) {
  return {_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)))};
}

void WidenRows(const uint8_t* codes, size_t count, int16_t* wide) {
  for (size_t i = 0; i < count; i += kCodePadding) StoreInt(wide + i, Widen(codes + i));
}

// panels[column / 16][token / 2][column % 16] = the codes of two tokens; a token past the end is zero.
void PackValuePairs(const uint8_t* codes, size_t stride, size_t tokens, size_t columns, float* panels) {
  for (size_t column = 0; column < columns; column += kTileColumns) {
    for (size_t token = 0; token < tokens; token += 2) {
      const __m256i even = Widen(codes + token * stride + column).v;
      const __m256i odd = token + 1 < tokens ? Widen(codes + (token + 1) * stride + column).v : _mm256_setzero_si256();
      // Columns 0-3 and 8-11, then 4-7 and 12-15, as the unpacks work within 128-bit lanes.
      const __m256i outer = _mm256_unpacklo_epi16(even, odd), inner = _mm256_unpackhi_epi16(even, odd);
      StoreInt(panels, {_mm256_permute2x128_si256(outer, inner, 0x20)});
      StoreInt(panels + kFloats, {_mm256_permute2x128_si256(outer, inner, 0x31)});
      panels += kTileColumns;
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

// In place over n scores; the row has room to a multiple of 16 and what lies past n is overwritten.
void Softmax(float* x, size_t n) {
  const size_t padded = RoundUp(n, kLanes);
  // -inf past the end: exp gives the +0 that the summation order wants there, and the maximum ignores it.
  for (size_t j = n; j < padded; ++j) x[j] = -__builtin_inff();
  F32 highest = F32::Broadcast(x[0]);
  for (size_t j = 0; j < padded; j += kFloats) highest = Max(Load(x + j), highest);
  const F32 max = F32::Broadcast(ReduceMax(highest));
  F32 low = Zero(), high = Zero();
  for (size_t j = 0; j < padded; j += kLanes) {
    const F32 a = Exp(Load(x + j) - max), b = Exp(Load(x + j + kFloats) - max);
    Store(x + j, a);
    Store(x + j + kFloats, b);
    low = low + a;
    high = high + b;
  }
  const F32 total = F32::Broadcast(SumLanes(low, high));
  for (size_t j = 0; j < padded; j += kFloats) Store(x + j, Load(x + j) / total);
}

// Scores of one tile from the integer products; the formula is in attention.h.
template <int R>
void DequantizeScores(const Tile<I32, R>& tile, const AttentionBuffers& b, size_t key, float d, F32 root) {
  for (size_t half = 0; half < 2; ++half) {
    const size_t j = key + half * kFloats;
    const F32 sj = Load(b.key_scale + j), oj = Load(b.key_offset + j), sum_k = ToFloat(LoadInt(b.key_sum + j));
    for (int r = 0; r < R; ++r) {
      const F32 si = F32::Broadcast(b.query_scale[r]), oi = F32::Broadcast(b.query_offset[r]);
      const F32 sum_q = F32::Broadcast(static_cast<float>(b.query_sum[r]));
      const F32 offsets = F32::Broadcast(d * b.query_offset[r]) * oj;
      const F32 t = Fma(si * sj, ToFloat(tile.at[r][half]), Fma(si * oj, sum_q, Fma(sj * oi, sum_k, offsets)));
      Store(b.scores + r * b.score_stride + j, t / root);
    }
  }
}

template <int R>
void AttendUint8(const AttentionHead& head, const AttentionSpecs& specs, const AttentionBuffers& b, size_t query,
                 float value_scale, float value_offset) {
  const size_t tokens = head.tokens, d = head.head_size;
  const F32 root = {_mm256_sqrt_ps(_mm256_set1_ps(static_cast<float>(d)))};

  QuantizeRows(head.query + query * head.stride, head.stride, R, d, specs.query, b.query_codes, b.code_stride,
               b.query_scale, b.query_offset, b.query_sum);
  WidenRows(b.query_codes, R * b.code_stride, b.wide);
  for (size_t key = 0; key < tokens; key += kTileColumns) {
    // RoundUp(d, 16) / 2 entries a key, as PackKeyPanels pads them.
    const float* panel = b.key_panels + key * (b.code_stride / 2);
    Tile<I32, R> tile;
    MultiplyInt16(b.wide, b.code_stride, reinterpret_cast<const int16_t*>(panel), RoundUp(d, 2) / 2, tile);
    DequantizeScores(tile, b, key, static_cast<float>(d), root);
  }

  float scale[R], offset[R];
  int32_t sum[R];
  for (int r = 0; r < R; ++r) Softmax(b.scores + r * b.score_stride, tokens);
  QuantizeRows(b.scores, b.score_stride, R, tokens, specs.probabilities, b.probability_codes, b.probability_stride,
               scale, offset, sum);
  WidenRows(b.probability_codes, R * b.probability_stride, b.wide);
  const size_t pairs = RoundUp(tokens, 2) / 2;
  for (size_t column = 0; column < d; column += kTileColumns) {
    const float* panel = b.value_panels + column * pairs;
    Tile<I32, R> tile;
    MultiplyInt16(b.wide, b.probability_stride, reinterpret_cast<const int16_t*>(panel), pairs, tile);
    for (int r = 0; r < R; ++r) {
      const F32 of_offset = F32::Broadcast(value_offset * static_cast<float>(sum[r]));
      for (size_t half = 0; half < 2; ++half) {
        const size_t c = column + half * kFloats;
        const F32 value = Fma(F32::Broadcast(value_scale), ToFloat(tile.at[r][half]), of_offset);
        StoreFirst(head.context + (query + r) * head.context_stride + c, d > c ? d - c : 0,
                   F32::Broadcast(scale[r]) * value);
      }
    }
  }
}

template <int R>
void AttendFloat(const AttentionHead& head, const AttentionBuffers& b, size_t query) {
  const size_t tokens = head.tokens, d = head.head_size;
  const F32 root = {_mm256_sqrt_ps(_mm256_set1_ps(static_cast<float>(d)))};

  for (size_t key = 0; key < tokens; key += kTileColumns) {
    const float* panel = b.key_panels + key * RoundUp(d, 8);
    Tile<F32, R> tile;
    MultiplyFloat(head.query + query * head.stride, head.stride, panel, d, tile);
    for (int r = 0; r < R; ++r) {
      Store(b.scores + r * b.score_stride + key, tile.at[r][0] / root);
      Store(b.scores + r * b.score_stride + key + kFloats, tile.at[r][1] / root);
    }
  }
  for (int r = 0; r < R; ++r) Softmax(b.scores + r * b.score_stride, tokens);
  for (size_t column = 0; column < d; column += kTileColumns) {
    Tile<F32, R> tile;
    MultiplyFloat(b.scores, b.score_stride, b.value_panels + column * tokens, tokens, tile);
    for (int r = 0; r < R; ++r) {
      for (size_t half = 0; half < 2; ++half) {
        const size_t c = column + half * kFloats;
        StoreFirst(head.context + (query + r) * head.context_stride + c, d > c ? d - c : 0, tile.at[r][half]);
      }
    }
  }
}

}  // namespace

void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch) {
  const size_t tokens = head.tokens, d = head.head_size;
  size_t bytes;
  const AttentionBuffers b = LayOutAttention(scratch, tokens, d, &bytes);

  QuantizeRows(head.key, head.stride, tokens, d, specs.key, b.key_codes, b.code_stride, b.key_scale, b.key_offset,
               b.key_sum);
  // Keys past the end, up to a whole panel, are loaded with their scores and then overwritten by the softmax.
  for (size_t j = tokens; j < b.score_stride; ++j) {
    b.key_scale[j] = b.key_offset[j] = 0.0f;
    b.key_sum[j] = 0;
  }
  PackKeyPanels(tokens, b.code_stride / 2, b.key_panels, [&](size_t key, size_t entry) {
    return AsFloat(Widen(b.key_codes + key * b.code_stride + 2 * entry));
  });
  float value_scale, value_offset;
  QuantizeBlock(head.value, head.stride, tokens, d, specs.value, b.value_codes, b.code_stride, &value_scale,
                &value_offset);
  PackValuePairs(b.value_codes, b.code_stride, tokens, d, b.value_panels);

  ForTiles(tokens, [&](size_t query, auto height) {
    AttendUint8<decltype(height)::value>(head, specs, b, query, value_scale, value_offset);
  });
}

void AttentionFloat(const AttentionHead& head, void* scratch) {
  const size_t tokens = head.tokens, d = head.head_size;
  size_t bytes;
  const AttentionBuffers b = LayOutAttention(scratch, tokens, d, &bytes);

  PackKeyPanels(tokens, d, b.key_panels, [&](size_t key, size_t entry) {
    return LoadMasked(head.key + key * head.stride + entry, TailMask(d - entry));
  });
  PackValueFloats(head.value, head.stride, tokens, d, b.value_panels);
  ForTiles(tokens, [&](size_t query, auto height) { AttendFloat<decltype(height)::value>(head, b, query); });
}

}  // namespace bitpress::avx2
