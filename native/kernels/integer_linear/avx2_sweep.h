// The sweep over panels and rows that all x86 kernels of integer_linear share; how a tile is multiplied is their own.
//
// For each panel of 16 outputs and block of at most kDepthBlock inputs, the weights are unpacked once to signed bytes
// in L1 (8-bit ones are there already), then swept over all rows in tiles.
//
// [Unpacking within the tile: every tile of rows would pay for it again.]
#pragma once

#include "kernels/integer_linear/avx2_tiles.h"
#include "kernels/integer_linear/avx2_unpack.h"
#include "kernels/simd/weight_fetcher.h"

namespace bitpress::avx2 {
namespace {

static_assert(kStepInputs == kPanelDepth && kTileColumns == kPanelColumns, "one panel is a tile wide");

// The unpacked panel block takes 12 KB of a 32 KB L1, next to one tile of activations (6 or 12 x 768) and the sums
// below.
constexpr size_t kDepthBlock = 768;
// Rows of a sweep: their int32 sums, kept between depth blocks, take 132 * 64 = 8.3 KB, which still fits beside them,
// and a text of 128 tokens is one sweep.
constexpr size_t kRowBlock = 132;
static_assert(kDepthBlock % kBlockInputs == 0, "whole blocks");
// Sums of activation codes by row and group, where offsets need them: 132 rows of 3,072 inputs in groups of 128 take
// 3,168. Sweeps of more groups than that take fewer rows.
constexpr size_t kCodeSums = 4096;
static_assert(kMaxIntegerInputs / kGroupGranularity <= kCodeSums, "one row has room");

struct alignas(64) Workspace {
  int8_t panel[kDepthBlock * kPanelColumns];
  int32_t sums[kRowBlock][kPanelColumns];
  float totals[kRowBlock][kPanelColumns];  // t of integer_linear.h
  int32_t code_sums[kCodeSums];            // [row][group]
};

// Activations of one sweep.
struct CodeRows {
  const uint8_t* codes;
  size_t stride, count;
};

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

// Every code as a float. [Converting codes where they are needed: one operation more for each, and no load fewer.]
struct CodeValues {
  float of[256];
};
constexpr CodeValues MakeCodeValues() {
  CodeValues values{};
  for (int code = 0; code < 256; ++code) values.of[code] = static_cast<float>(code);
  return values;
}
constexpr CodeValues kCodeValues = MakeCodeValues();

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

// The lanes of a column of a panel half: eight masks in a row, of which one is set, read from its column on.
alignas(32) constexpr int32_t kColumnMasks[2 * kOutlierColumns - 1] = {0, 0, 0, 0, 0, 0, 0, -1};

// y of all rows and a panel of a matrix with outliers, by the formulas of integer_linear.h. Seven columns of each
// register gain 0 * code = +0 from an outlier, which changes no t: t is never -0, because it starts as a sum from +0.
//
// The rows of a tile share a delta, and each has its pointer in a register: a look-up of the code's float and a
// multiply-add for each. [Ten rows: their pointers lie in memory. Six: more tiles, whose ends are not foreseen.]
constexpr int kOutlierRows = 8;
//
// sums: of each row the 16 of this panel, rows `stride` apart.
void WriteRowsWithOutliers(const int32_t* sums, size_t stride, const CodeRows& rows, const float* a_scale,
                           const float* a_offset, const IntegerMatrix& w, size_t panel, float* y, size_t ldy) {
  static_assert(kOutlierColumns == kFloats, "an outlier is a lane");
  for (size_t half = 0; half < kPanelHalves; ++half) {
    const size_t column = half * kOutlierColumns, n = panel * kPanelColumns + column;
    if (n >= w.outputs) return;
    const size_t* range = w.outlier_begin.data() + panel * kPanelHalves + half;
    const Outlier *begin = w.outliers.data() + range[0], *end = w.outliers.data() + range[1];
    ForTiles<kOutlierRows>(rows.count, [&](size_t row, auto height) {
      constexpr int R = decltype(height)::value;
      const F32 scale = Load(w.scale.data() + n);
      const uint8_t* codes[R];
      F32 t[R];
#define BITPRESS_FOR_ROWS _Pragma("GCC unroll 8") for (int r = 0; r < R; ++r)
      BITPRESS_FOR_ROWS {
        codes[r] = rows.codes + (row + r) * rows.stride;
        t[r] = Fma(ToFloat(LoadInt(sums + (row + r) * stride + column)), scale, Zero());
      }
      for (const Outlier* o = begin; o < end; ++o) {
        const I32 mask = LoadInt(kColumnMasks + kOutlierColumns - 1 - o->column);
        const F32 delta = And(mask, F32::Broadcast(o->delta));
        BITPRESS_FOR_ROWS t[r] = Fma(F32::Broadcast(kCodeValues.of[codes[r][o->input]]), delta, t[r]);
      }
      const F32 weight_sum = Load(w.weight_sum.data() + n), bias = Load(w.bias.data() + n);
      BITPRESS_FOR_ROWS {
        const F32 scale_x = F32::Broadcast(a_scale[row + r]), offset_x = F32::Broadcast(a_offset[row + r]);
        StoreFirst(y + (row + r) * ldy + n, w.outputs - n, Fma(scale_x, t[r], Fma(offset_x, weight_sum, bias)));
      }
#undef BITPRESS_FOR_ROWS
    });
  }
}

// f(first row, rows) for sweeps of at most kRowBlock rows, with the sums of their codes where offsets need them.
template <class F>
void ForSweeps(const uint8_t* a, size_t lda, size_t m, const IntegerMatrix& w, int32_t* code_sums, F f) {
  size_t row_block = kRowBlock;
  if (!w.offset.empty() && kCodeSums / w.groups < row_block) row_block = kCodeSums / w.groups;
  for (size_t row = 0; row < m; row += row_block) {
    const CodeRows rows = {a + row * lda, lda, m - row < row_block ? m - row : row_block};
    if (!w.offset.empty()) SumCodes(rows, w, code_sums);
    f(row, rows);
  }
}

// Products, one object a call:
//   kRows                             of a tile; kRowBlock is a multiple
//   DepthBlock(int16_steps)           the inputs of a block of such a panel, at most kDepthBlock
//   SetPanel(bytes, steps, int16_steps)
//                                     the block that the next tiles are multiplied with; stays where it is meanwhile
//   Multiply<R>(a, lda, sums)         R rows of codes with it
template <class Products>
void SweepPanels(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                 const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
  static_assert(kRowBlock % Products::kRows == 0, "whole tiles");
  Workspace work;
  Products products;
  const UnpackTables tables(w);
  ForSweeps(a, lda, m, w, work.code_sums, [&](size_t row_begin, const CodeRows& rows) {
    for (size_t p = panel_begin; p < panel_end; ++p) {
      const size_t tiles = (rows.count + Products::kRows - 1) / Products::kRows;
      const size_t next_bytes = p + 1 < panel_end ? w.panel_bytes : 0;
      Fetcher next(w.packed.get() + (p + 1) * w.panel_bytes, next_bytes,
                   tiles * ((w.padded_inputs + kDepthBlock - 1) / kDepthBlock));
      if (w.is_chained()) __builtin_memset(work.totals, 0, rows.count * sizeof(work.totals[0]));
      const size_t depth_block = Products::DepthBlock(w.int16_steps[p]);
      for (size_t k = 0, depth; k < w.padded_inputs; k += depth) {
        const size_t code = k % w.term_inputs;  // that input k reads
        depth = w.term_inputs - code < depth_block ? w.term_inputs - code : depth_block;
        const uint8_t* packed = w.packed.get() + p * w.panel_bytes + k / kBlockInputs * BlockBytes(w.bits);
        products.SetPanel(UnpackBlocks(packed, w.bits, depth / kBlockInputs, tables, work.panel), depth / kStepInputs,
                          w.int16_steps[p]);
        const TileSums to = SumsFrom(w, p, k, work);
        ForTiles<Products::kRows>(rows.count, [&](size_t row, auto height) {
          next.TakeTurn();
          TileSums of_tile = to;
          of_tile.sums += row;
          of_tile.totals += row;
          of_tile.code_sums += row * to.code_stride;
          products.template Multiply<decltype(height)::value>(rows.codes + row * lda + code, lda, of_tile);
        });
      }
      if (!w.outliers.empty()) {
        WriteRowsWithOutliers(work.sums[0], kPanelColumns, rows, a_scale + row_begin, a_offset + row_begin, w, p,
                              y + row_begin * ldy, ldy);
        continue;
      }
      for (size_t row = 0; row < rows.count; ++row) {
        const size_t i = row_begin + row;
        WriteRow(work, row, a_scale[i], a_offset[i], w, p, y + i * ldy + p * kPanelColumns);
      }
    }
  });
}

}  // namespace
}  // namespace bitpress::avx2
