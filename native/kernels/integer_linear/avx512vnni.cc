// AVX-512 VNNI: tiles of up to 12 rows x 2 panels, a row and panel in one register of 16 sums, multiplied by
// `vpdpbusd`: four unsigned codes times four signed bytes, added up in int32 at once, exactly. So one kernel serves
// every panel, whatever its weights (IntegerMatrix::int16_steps is for `vpmaddubsw`).
//
// Two panels, because a step then loads 2 + 12 registers for 24 multiplies; with one it is 1 + 12 for 12, and CPUs load
// two registers a cycle, no more than they multiply. 24 sums, two panels and the broadcasts fit the 32 registers.
#include "kernels/simd/avx512vnni.h"

#include "kernels/integer_linear/avx2_sweep.h"
#include "kernels/integer_linear/avx512_unpack.h"

namespace bitpress::avx512vnni {
namespace {

using avx2::CodeRows;
using avx2::kRowBlock;
using avx2::kStepBytes;
using avx2::kStepInputs;

constexpr size_t kPanels = 2;  // of a tile
constexpr int kRows = 12;
// Both unpacked panels take 16 KB of a 32 KB L1, next to 12 x 512 bytes of activations.
constexpr size_t kDepthBlock = 512;
static_assert(kDepthBlock % kGroupGranularity == 0 && kRowBlock % kRows == 0, "whole groups, whole tiles");

using Sums = int32_t[kPanels][kPanelColumns];
using Totals = float[kPanels][kPanelColumns];

struct alignas(64) Workspace {
  int8_t panel[kPanels][kDepthBlock * kPanelColumns];
  Sums sums[kRowBlock];      // of a group that is not complete
  Totals totals[kRowBlock];  // t of integer_linear.h
  int32_t code_sums[avx2::kCodeSums];
};

// sums[r][p] += codes of row r times panel p, over `steps` steps; from 0 where `fresh`. A function of its own, in which
// nothing but this loop claims registers.
template <int R, int P>
[[gnu::noinline]] void Multiply(const uint8_t* a, size_t lda, const int8_t* left, const int8_t* right, size_t steps,
                                bool fresh, Sums* sums) {
  __m512i acc[R][P];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p) acc[r][p] = fresh ? _mm512_setzero_si512() : _mm512_load_si512(sums[r][p]);
  }
  for (size_t step = 0; step < steps; ++step) {
    const __m512i first = _mm512_loadu_si512(left + step * kStepBytes);
    const __m512i second = P > 1 ? _mm512_loadu_si512(right + step * kStepBytes) : first;
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const __m512i codes = BroadcastWord(a + r * lda + step * kStepInputs);
      acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], codes, first);
      if constexpr (P > 1) acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], codes, second);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p) _mm512_store_si512(sums[r][p], acc[r][p]);
  }
}

__m512 LoadSums(const int32_t* sums) { return _mm512_cvtepi32_ps(_mm512_load_si512(sums)); }

// Adds the sums of one complete group to the totals, from +0 for the first, by the second formula of integer_linear.h.
template <int P>
void AddGroup(const IntegerMatrix& w, size_t panel, size_t group, const Sums* sums, const int32_t* code_sums,
              size_t rows, Totals* totals) {
  const auto before = [&](size_t r, int p) { return group > 0 ? _mm512_load_ps(totals[r][p]) : _mm512_setzero_ps(); };
  for (int p = 0; p < P; ++p) {
    const size_t at = ((panel + p) * w.groups + group) * kPanelColumns;
    const __m512 scale = _mm512_loadu_ps(w.scale.data() + at);
    if (w.offset.empty()) {
      for (size_t r = 0; r < rows; ++r) {
        _mm512_store_ps(totals[r][p], _mm512_fmadd_ps(LoadSums(sums[r][p]), scale, before(r, p)));
      }
      continue;
    }
    const __m512 offset = _mm512_loadu_ps(w.offset.data() + at);
    for (size_t r = 0; r < rows; ++r) {
      const __m512 scaled = _mm512_fmadd_ps(LoadSums(sums[r][p]), scale, before(r, p));
      const __m512 code_sum = _mm512_set1_ps(static_cast<float>(code_sums[r * w.groups]));
      _mm512_store_ps(totals[r][p], _mm512_fmadd_ps(code_sum, offset, scaled));
    }
  }
}

// y of a tile, by the formulas of integer_linear.h.
template <int P>
void WriteRows(const IntegerMatrix& w, size_t panel, const Sums* sums, const Totals* totals, const float* a_scale,
               const float* a_offset, size_t rows, float* y, size_t ldy) {
  for (int p = 0; p < P; ++p) {
    const size_t n = (panel + p) * kPanelColumns;
    const size_t columns = w.outputs - n;
    const __mmask16 mask = columns < kPanelColumns ? static_cast<__mmask16>((1u << columns) - 1) : __mmask16{0xFFFF};
    const __m512 bias = _mm512_loadu_ps(w.bias.data() + n);
    if (w.is_chained()) {
      const __m512 weight_sum = _mm512_loadu_ps(w.weight_sum.data() + n);
      for (size_t r = 0; r < rows; ++r) {
        const __m512 constant = _mm512_fmadd_ps(_mm512_set1_ps(a_offset[r]), weight_sum, bias);
        const __m512 out = _mm512_fmadd_ps(_mm512_set1_ps(a_scale[r]), _mm512_load_ps(totals[r][p]), constant);
        _mm512_mask_storeu_ps(y + r * ldy + n, mask, out);
      }
      continue;
    }
    const __m512 scale = _mm512_loadu_ps(w.scale.data() + n);
    const __m512 code_sum = _mm512_cvtepi32_ps(_mm512_loadu_si512(w.code_sum.data() + n));
    for (size_t r = 0; r < rows; ++r) {
      const __m512 constant = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_set1_ps(a_offset[r]), scale), code_sum, bias);
      const __m512 out =
          _mm512_fmadd_ps(LoadSums(sums[r][p]), _mm512_mul_ps(_mm512_set1_ps(a_scale[r]), scale), constant);
      _mm512_mask_storeu_ps(y + r * ldy + n, mask, out);
    }
  }
}

// All rows of a sweep with P panels. next_bytes: of the packed panels behind these that will be swept next.
template <int P>
void SweepTile(const CodeRows& rows, const float* a_scale, const float* a_offset, const IntegerMatrix& w, size_t panel,
               size_t next_bytes, const UnpackTables& tables, Workspace& work, float* y, size_t ldy) {
  const size_t tiles = (rows.count + kRows - 1) / kRows, blocks = (w.padded_inputs + kDepthBlock - 1) / kDepthBlock;
  Fetcher next(w.packed.get() + (panel + P) * w.panel_bytes, next_bytes, tiles * blocks);
  for (size_t k = 0, depth; k < w.padded_inputs; k += depth) {
    const size_t code = k % w.term_inputs;  // that input k reads
    depth = w.term_inputs - code < kDepthBlock ? w.term_inputs - code : kDepthBlock;
    const int8_t* bytes[P];
    for (int p = 0; p < P; ++p) {
      const uint8_t* packed = w.packed.get() + (panel + p) * w.panel_bytes + k / kBlockInputs * BlockBytes(w.bits);
      bytes[p] = UnpackBlocks(packed, w.bits, depth / kBlockInputs, tables, work.panel[p]);
    }
    avx2::ForTiles<kRows>(rows.count, [&](size_t row, auto height) {
      constexpr int R = decltype(height)::value;
      next.TakeTurn();
      for (size_t begin = k, end; begin < k + depth; begin = end) {
        const size_t group = begin / w.group_inputs, first = group * w.group_inputs;
        const size_t last = w.padded_inputs - first < w.group_inputs ? w.padded_inputs : first + w.group_inputs;
        end = last < k + depth ? last : k + depth;
        const size_t at = (begin - k) / kStepInputs * kStepBytes;
        Multiply<R, P>(rows.codes + row * rows.stride + code + (begin - k), rows.stride, bytes[0] + at,
                       bytes[P - 1] + at, (end - begin) / kStepInputs, begin == first, work.sums + row);
        if (end == last && w.is_chained()) {
          AddGroup<P>(w, panel, group, work.sums + row, work.code_sums + row * w.groups + group, R, work.totals + row);
        }
      }
      if (k + depth == w.padded_inputs && w.outliers.empty()) {
        WriteRows<P>(w, panel, work.sums + row, work.totals + row, a_scale + row, a_offset + row, R, y + row * ldy,
                     ldy);
      }
    });
  }
  if (w.outliers.empty()) return;
  for (int p = 0; p < P; ++p) {
    avx2::WriteRowsWithOutliers(work.sums[0][p], sizeof(Sums) / sizeof(int32_t), rows, a_scale, a_offset, w, panel + p,
                                y, ldy);
  }
}

}  // namespace

void IntegerLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
  Workspace work;
  const UnpackTables tables(w);
  avx2::ForSweeps(a, lda, m, w, work.code_sums, [&](size_t row, const CodeRows& rows) {
    size_t panel = panel_begin;
    for (; panel + kPanels <= panel_end; panel += kPanels) {
      const size_t left = panel_end - panel - kPanels, next = left < kPanels ? left : kPanels;
      SweepTile<kPanels>(rows, a_scale + row, a_offset + row, w, panel, next * w.panel_bytes, tables, work,
                         y + row * ldy, ldy);
    }
    if (panel < panel_end) {
      SweepTile<1>(rows, a_scale + row, a_offset + row, w, panel, 0, tables, work, y + row * ldy, ldy);
    }
  });
}

}  // namespace bitpress::avx512vnni
