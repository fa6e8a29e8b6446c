// For each panel of 16 outputs and block of at most kDepthBlock inputs, the weights are unpacked once to signed bytes
// in L1 (8-bit ones are there already), then swept over all rows in tiles of four by `sdot`: four products a lane,
// added up in int32, so that no sum needs widening and IntegerMatrix::int16_steps no look.
#include "kernels/integer_linear/neon_unpack.h"
#include "kernels/simd/neon_tiles.h"

namespace bitpress::neondot {
namespace {

static_assert(kStepInputs == kPanelDepth && kTileColumns == kPanelColumns && kRowStep == kBlockInputs,
              "one panel is a tile wide, one block a register of activation codes deep");

// The unpacked panel block takes 12 KB of an L1 of 32 KB or more, the sums below 8 KB each.
constexpr size_t kDepthBlock = 768;
constexpr size_t kRowBlock = 128;
static_assert(kRowBlock % kTileRows == 0 && kDepthBlock % kGroupGranularity == 0, "whole tiles and pieces");
// Sums of activation codes by row and group, where offsets need them. Sweeps of more groups than that take fewer rows.
constexpr size_t kCodeSums = 4096;
static_assert(kMaxIntegerInputs / kGroupGranularity <= kCodeSums, "one row has room");

// The inputs of one group that lie within a depth block.
struct Piece {
  size_t begin, depth;  // within the block
  size_t group;
  bool is_first, is_last;        // of its group
  int32_t start[kPanelColumns];  // 128 times the sum of the weights (SignedDot)
};

struct alignas(64) Workspace {
  int8_t panel[kDepthBlock * kPanelColumns];
  int32_t sums[kRowBlock][kPanelColumns];  // of a group that is not complete, or of all inputs
  float totals[kRowBlock][kPanelColumns];  // t of integer_linear.h
  int32_t code_sums[kCodeSums];            // [row][group]
  Piece pieces[kDepthBlock / kGroupGranularity];
};

// Activations of one sweep.
struct CodeRows {
  const uint8_t* codes;
  size_t stride, count;
};

size_t GroupEnd(const IntegerMatrix& w, size_t group) {
  const size_t begin = group * w.group_inputs;
  return w.padded_inputs - begin < w.group_inputs ? w.padded_inputs : begin + w.group_inputs;
}

// code_sums[row][group]; codes are zero past the inputs.
void SumCodes(const CodeRows& rows, const IntegerMatrix& w, int32_t* code_sums) {
  for (size_t row = 0; row < rows.count; ++row) {
    const uint8_t* codes = rows.codes + row * rows.stride;
    for (size_t group = 0; group < w.groups; ++group) {
      uint32x4_t sum = vdupq_n_u32(0);
      for (size_t k = group * w.group_inputs; k < GroupEnd(w, group); k += kBlockInputs) {
        sum = vdotq_u32(sum, vld1q_u8(codes + k), vdupq_n_u8(1));
      }
      *code_sums++ = static_cast<int32_t>(vaddvq_u32(sum));
    }
  }
}

// Of the block of `depth` inputs that starts at input k. The padding of the panel counts in `start`, as it does in the
// sums that this corrects: there the code 0 of an activation is -128.
size_t FindPieces(const IntegerMatrix& w, size_t k, size_t depth, const int8_t* panel, Piece* pieces) {
  const int8x16_t offset = vdupq_n_s8(-128);
  size_t count = 0;
  for (size_t begin = 0; begin < depth; ++count) {
    Piece& piece = pieces[count];
    piece.group = (k + begin) / w.group_inputs;
    const size_t end = GroupEnd(w, piece.group) - k;
    piece.begin = begin;
    piece.depth = (end < depth ? end : depth) - begin;
    piece.is_first = k + begin == piece.group * w.group_inputs;
    piece.is_last = end <= depth;
    I32x16 sum = ZeroInts();
    for (size_t step = begin / kStepInputs; step < (begin + piece.depth) / kStepInputs; ++step) {
      const int8_t* weights = panel + step * kStepBytes;
      const auto add = [&](I32 s, size_t at) { return I32{vdotq_s32(s.v, vld1q_s8(weights + at), offset)}; };
      sum = {add(sum.a, 0), add(sum.b, 16), add(sum.c, 32), add(sum.d, 48)};
    }
    StoreInts(piece.start, ZeroInts() - sum);
    begin += piece.depth;
  }
  return count;
}

void AddToTotal(const IntegerMatrix& w, size_t panel, const Piece& piece, I32x16 sum, int32_t code_sum, float* total) {
  const size_t at = (panel * w.groups + piece.group) * kPanelColumns;
  F32x16 t = Fma(ToFloat(sum), Load(w.scale.data() + at), Load(total));
  if (!w.offset.empty()) t = Fma(F32x16::Broadcast(static_cast<float>(code_sum)), Load(w.offset.data() + at), t);
  Store(total, t);
}

// The products of R rows, from `row` of the sweep and their code `code` on, with the pieces of a panel block.
template <int R>
void MultiplyTile(const CodeRows& rows, size_t row, const IntegerMatrix& w, size_t panel_index, size_t code,
                  const int8_t* panel, size_t pieces, Workspace& work) {
  for (size_t i = 0; i < pieces; ++i) {
    const Piece& piece = work.pieces[i];
    const I32x16 start = LoadInts(piece.start);
    // int32 holds 255 * 128 * kMaxIntegerInputs.
    I32x16 tile[R];
    for (int r = 0; r < R; ++r) tile[r] = piece.is_first ? start : start + LoadInts(work.sums[row + r]);
    MultiplyBytes<SignedDot>(rows.codes + row * rows.stride + code + piece.begin, rows.stride,
                             panel + piece.begin * kPanelColumns, piece.depth, tile);
    for (int r = 0; r < R; ++r) {
      if (piece.is_last && w.is_chained()) {
        const int32_t code_sum = w.offset.empty() ? 0 : work.code_sums[(row + r) * w.groups + piece.group];
        AddToTotal(w, panel_index, piece, tile[r], code_sum, work.totals[row + r]);
      } else {
        StoreInts(work.sums[row + r], tile[r]);
      }
    }
  }
}

// y of one row and panel, by the formulas of integer_linear.h.
void WriteRow(const Workspace& work, size_t row, float s_x, float o_x, const IntegerMatrix& w, size_t panel, float* y) {
  const size_t n = panel * kPanelColumns;
  const F32x16 scale = F32x16::Broadcast(s_x), offset = F32x16::Broadcast(o_x), bias = Load(w.bias.data() + n);
  F32x16 out;
  if (w.is_chained()) {
    out = Fma(scale, Load(work.totals[row]), Fma(offset, Load(w.weight_sum.data() + n), bias));
  } else {
    const F32x16 weight_scale = Load(w.scale.data() + n), code_sum = ToFloat(LoadInts(w.code_sum.data() + n));
    out = Fma(ToFloat(LoadInts(work.sums[row])), scale * weight_scale, Fma(offset * weight_scale, code_sum, bias));
  }
  StoreFirst(y, w.outputs - n, out);
}

// The same of a matrix with outliers.
void WriteRowWithOutliers(const Workspace& work, const CodeRows& rows, size_t row, float s_x, float o_x,
                          const IntegerMatrix& w, size_t panel, float* y) {
  const size_t n = panel * kPanelColumns;
  const F32x16 scale = F32x16::Broadcast(s_x), offset = F32x16::Broadcast(o_x), bias = Load(w.bias.data() + n);
  float t[kPanelColumns];
  Store(t, Fma(ToFloat(LoadInts(work.sums[row])), Load(w.scale.data() + n), F32x16::Broadcast(0.0f)));
  for (size_t half = 0; half < kPanelHalves; ++half) {
    const size_t* range = w.outlier_begin.data() + panel * kPanelHalves + half;
    for (const Outlier *o = w.outliers.data() + range[0], *end = w.outliers.data() + range[1]; o < end; ++o) {
      float& sum = t[half * kOutlierColumns + o->column];
      sum = __builtin_fmaf(static_cast<float>(rows.codes[row * rows.stride + o->input]), o->delta, sum);
    }
  }
  StoreFirst(y, w.outputs - n, Fma(scale, Load(t), Fma(offset, Load(w.weight_sum.data() + n), bias)));
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
      for (size_t k = 0, depth; k < w.padded_inputs; k += depth) {
        const size_t code = k % w.term_inputs;  // that input k reads
        depth = w.term_inputs - code < kDepthBlock ? w.term_inputs - code : kDepthBlock;
        const uint8_t* packed = w.packed.get() + p * w.panel_bytes + k / kBlockInputs * BlockBytes(w.bits);
        const int8_t* panel = UnpackBlocks(packed, w.bits, depth / kBlockInputs, tables, work.panel);
        const size_t pieces = FindPieces(w, k, depth, panel, work.pieces);
        ForTiles(rows.count, [&](size_t row, auto height) {
          MultiplyTile<decltype(height)::value>(rows, row, w, p, code, panel, pieces, work);
        });
      }
      for (size_t row = 0; row < rows.count; ++row) {
        const size_t i = row_begin + row;
        float* const to = y + i * ldy + p * kPanelColumns;
        if (w.outliers.empty()) {
          WriteRow(work, row, a_scale[i], a_offset[i], w, p, to);
        } else {
          WriteRowWithOutliers(work, rows, row, a_scale[i], a_offset[i], w, p, to);
        }
      }
    }
  }
}

}  // namespace bitpress::neondot
