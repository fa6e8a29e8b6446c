// The kernel that most of the time goes to.
//
// For each panel of 16 outputs and block of at most kDepthBlock inputs, the weights are unpacked once to signed bytes
// in L1 (8-bit ones are there already), then swept over all rows in tiles of six (avx2_tiles.h). Panels of which a pair
// of weights could saturate `vpmaddubsw` go through int16 instead.
//
// [Unpacking within the tile: every six rows would pay for it again.]
#include "kernels/integer_linear/avx2_tiles.h"
#include "kernels/integer_linear/avx2_unpack.h"

namespace bitpress::avx2 {
namespace {

static_assert(kStepInputs == kPanelDepth && kTileColumns == kPanelColumns, "one panel is a tile wide");

// The unpacked panel block takes 12 KB of a 32 KB L1, next to one tile of activations (6 x 768) and the sums below.
constexpr size_t kDepthBlock = 768;
// Rows of a sweep: their int32 sums, kept between depth blocks, take 132 * 64 = 8.3 KB, which still fits beside them,
// and a text of 128 tokens is one sweep.
constexpr size_t kRowBlock = 132;
// Of the exact kernel, whose panel and rows are twice as wide.
constexpr size_t kWideDepth = kDepthBlock / 2;
static_assert(kRowBlock % kTileRows == 0 && kDepthBlock % kBlockInputs == 0 && kWideDepth % kBlockInputs == 0,
              "whole tiles and blocks");
// Sums of activation codes by row and group, where offsets need them: 132 rows of 3,072 inputs in groups of 128 take
// 3,168. Sweeps of more groups than that take fewer rows.
constexpr size_t kCodeSums = 4096;
static_assert(kMaxIntegerInputs / kGroupGranularity <= kCodeSums, "one row has room");

struct alignas(64) Workspace {
  int8_t panel[kDepthBlock * kPanelColumns];
  int32_t sums[kRowBlock][kPanelColumns];
  float totals[kRowBlock][kPanelColumns];  // t of integer_linear.h
  int32_t code_sums[kCodeSums];            // [row][group]
  int16_t wide_panel[kWideDepth * kPanelColumns];
  int16_t wide_rows[kTileRows][kWideDepth];
};

// Activations of one sweep.
struct CodeRows {
  const uint8_t* codes;
  size_t stride, count;
};

// Signed bytes of 8 columns x 4 inputs to int16 of 16 columns x 2 inputs, twice: MultiplyInt16's panel.
void WidenPanel(const int8_t* panel, size_t steps, int16_t* wide) {
  // Bytes 0 and 1 of each column to the upper halves of its two int16 lanes; bytes 2 and 3.
  const __m256i first =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13));
  const __m256i second =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15));
  const auto widen = [](__m256i bytes, __m256i order) {
    return I32{_mm256_srai_epi16(_mm256_shuffle_epi8(bytes, order), 8)};
  };
  for (size_t step = 0; step < steps; ++step, panel += kStepBytes, wide += kStepBytes) {
    const __m256i left = LoadInt(panel).v, right = LoadInt(panel + 32).v;
    StoreInt(wide, widen(left, first));
    StoreInt(wide + 16, widen(right, first));
    StoreInt(wide + 32, widen(left, second));
    StoreInt(wide + 48, widen(right, second));
  }
}

void WidenRow(const uint8_t* codes, size_t count, int16_t* wide) {
  for (size_t k = 0; k < count; k += kBlockInputs) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + k));
    StoreInt(wide + k, {_mm256_cvtepu8_epi16(bytes)});
  }
}

// An unpacked block of a panel, as signed bytes or, where int16_steps is 0, widened.
struct PanelBlock {
  const int8_t* bytes;
  const int16_t* wide;
  size_t steps, int16_steps;
};

// The products of R rows with a panel block. int32 holds 255 * 128 * kMaxIntegerInputs.
template <int R>
void MultiplyTile(const uint8_t* a, size_t lda, const PanelBlock& panel, int16_t (*wide_rows)[kWideDepth],
                  const TileSums& to) {
  if (panel.int16_steps > 1) {
    SumSteps<R>(panel.steps, panel.int16_steps, to, [&](size_t step, size_t count, auto& tile) {
      MultiplyInInt16<R>(a + step * kStepInputs, lda, panel.bytes + step * kStepBytes, count, tile);
    });
  } else if (panel.int16_steps == 1) {
    SumSteps<R>(panel.steps, panel.steps, to, [&](size_t step, size_t count, auto& tile) {
      MultiplyInInt32<R>(a + step * kStepInputs, lda, panel.bytes + step * kStepBytes, count, tile);
    });
  } else {
    // `vpmaddubsw` could saturate: the products of pairs, |sum| <= 2 * 255 * 128, come from `vpmaddwd` in int32.
    // [Two fast tiles, each with one half of every weight, so that neither saturates: half the speed of one.]
    for (size_t r = 0; r < R; ++r) WidenRow(a + r * lda, panel.steps * kStepInputs, wide_rows[r]);
    SumSteps<R>(panel.steps, panel.steps, to, [&](size_t step, size_t count, auto& tile) {
      MultiplyInt16<R>(wide_rows[0] + step * kStepInputs, kWideDepth, panel.wide + step * kStepBytes, 2 * count, tile);
    });
  }
}

// code_sums[row][group]; codes are zero past the inputs.
void SumCodes(const CodeRows& rows, const IntegerMatrix& w, int32_t* code_sums) {
  const __m256i zero = _mm256_setzero_si256();
  for (size_t row = 0; row < rows.count; ++row) {
    const uint8_t* codes = rows.codes + row * rows.stride;
    for (size_t k = 0; k < w.padded_inputs; k += w.group_inputs) {
      const size_t end = w.padded_inputs - k < w.group_inputs ? w.padded_inputs : k + w.group_inputs;
      __m128i sum = _mm_setzero_si128();
      for (size_t i = k; i < end; i += kBlockInputs) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i));
        sum = _mm_add_epi64(sum, _mm_sad_epu8(bytes, _mm256_castsi256_si128(zero)));
      }
      *code_sums++ = _mm_cvtsi128_si32(sum) + _mm_extract_epi32(sum, 2);
    }
  }
}

PanelBlock UnpackBlock(const IntegerMatrix& w, size_t panel, size_t k, size_t depth, const UnpackTables& tables,
                       Workspace& work) {
  const uint8_t* packed = w.packed.get() + panel * w.panel_bytes + k / kBlockInputs * BlockBytes(w.bits);
  const int8_t* bytes = UnpackBlocks(packed, w.bits, depth / kBlockInputs, tables, work.panel);
  const size_t steps = depth / kStepInputs;
  if (w.int16_steps[panel] == 0) WidenPanel(bytes, steps, work.wide_panel);
  return {bytes, work.wide_panel, steps, w.int16_steps[panel]};
}

// Where the sums of row 0 and a block that starts at input k go.
TileSums SumsFrom(const IntegerMatrix& w, size_t panel, size_t k, Workspace& work) {
  const size_t group = k / w.group_inputs, at = (panel * w.groups + group) * kPanelColumns;
  const size_t begin = group * w.group_inputs;
  const size_t end = w.padded_inputs - begin < w.group_inputs ? w.padded_inputs : begin + w.group_inputs;
  TileSums to;
  to.sums = work.sums;
  to.totals = work.totals;
  to.is_chained = w.is_chained();
  to.add = k > begin;
  to.group_end = (end - k) / kStepInputs;
  to.group_steps = w.group_inputs / kStepInputs;
  to.all_steps = (w.padded_inputs - k) / kStepInputs;
  to.scale = w.scale.data() + at;
  to.offset = w.offset.empty() ? nullptr : w.offset.data() + at;
  to.code_sums = work.code_sums + group;
  to.code_stride = w.groups;
  return to;
}

// y of one row and panel, by the formulas of integer_linear.h.
void WriteRow(const Workspace& work, size_t row, float s_x, float o_x, const IntegerMatrix& w, size_t panel, float* y) {
  for (size_t half = 0; half < kPanelColumns; half += kFloats) {
    const size_t n = panel * kPanelColumns + half;
    if (n >= w.outputs) return;
    const F32 scale = F32::Broadcast(s_x), offset = F32::Broadcast(o_x), bias = Load(w.bias.data() + n);
    F32 out;
    if (w.is_chained()) {
      out = Fma(scale, Load(work.totals[row] + half), Fma(offset, Load(w.weight_sum.data() + n), bias));
    } else {
      const F32 weight_scale = Load(w.scale.data() + n), code_sum = ToFloat(LoadInt(w.code_sum.data() + n));
      out = Fma(ToFloat(LoadInt(work.sums[row] + half)), scale * weight_scale,
                Fma(offset * weight_scale, code_sum, bias));
    }
    StoreFirst(y + half, w.outputs - n, out);
  }
}

}  // namespace

void IntegerLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
  Workspace work;
  const UnpackTables tables(w);
  size_t row_block = kRowBlock;
  if (!w.offset.empty() && kCodeSums / w.groups < row_block) row_block = kCodeSums / w.groups;
  for (size_t row_begin = 0; row_begin < m; row_begin += row_block) {
    const CodeRows rows = {a + row_begin * lda, lda, m - row_begin < row_block ? m - row_begin : row_block};
    if (!w.offset.empty()) SumCodes(rows, w, work.code_sums);
    for (size_t p = panel_begin; p < panel_end; ++p) {
      if (w.is_chained()) __builtin_memset(work.totals, 0, rows.count * sizeof(work.totals[0]));
      const size_t depth_block = w.int16_steps[p] > 0 ? kDepthBlock : kWideDepth;
      for (size_t k = 0; k < w.padded_inputs; k += depth_block) {
        const size_t depth = w.padded_inputs - k < depth_block ? w.padded_inputs - k : depth_block;
        const PanelBlock block = UnpackBlock(w, p, k, depth, tables, work);
        const TileSums to = SumsFrom(w, p, k, work);
        ForTiles(rows.count, [&](size_t row, auto height) {
          TileSums of_tile = to;
          of_tile.sums += row;
          of_tile.totals += row;
          of_tile.code_sums += row * to.code_stride;
          MultiplyTile<decltype(height)::value>(rows.codes + row * lda + k, lda, block, work.wide_rows, of_tile);
        });
      }
      for (size_t row = 0; row < rows.count; ++row) {
        const size_t i = row_begin + row;
        WriteRow(work, row, a_scale[i], a_offset[i], w, p, y + i * ldy + p * kPanelColumns);
      }
    }
  }
}

}  // namespace bitpress::avx2
