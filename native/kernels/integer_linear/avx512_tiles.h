// Tiles of up to 8 rows x 2 panels, a row and panel in one register of 16 sums, multiplied by `vpdpbusd`: four unsigned
// codes times four signed bytes, added up in int32 at once, exactly. So one kernel serves every panel, whatever its
// weights (IntegerMatrix::int16_steps is for `vpmaddubsw`).
//
// Two panels, because a step then loads 2 + 8 registers for 16 multiplies; with one it is 1 + 8 for 8, and CPUs load
// two registers a cycle, no more than they multiply. 16 sums cover the latency (5) times the throughput (2) of the
// multiply and leave registers for all else that a tile does: groups end, and outputs are computed, from where the sums
// are, while the CPU begins to multiply for what comes next. On Zen 5 the ends of groups of 128 inputs take 5 %, of
// which 3 are their multiply-adds. [12 rows: no register is left, so sums go to memory and come back; 17 %.]
//
// The steps are written so that a CPU seldom waits. Four are unrolled, so a group of 128 inputs is a loop of 8 turns,
// whose end branch predictors foresee (of 32 they do not: 7 % with groups). Weights that come next are fetched by the
// steps.
#pragma once

#include "kernels/integer_linear/layout.h"
#include "kernels/simd/avx512.h"
#include "kernels/simd/avx512vnni.h"

namespace bitpress::avx512vnni {
namespace {

constexpr size_t kStepInputs = kPanelDepth, kStepBytes = kStepInputs * kPanelColumns;  // of a panel
constexpr size_t kPanels = 2;                                                          // of a tile
constexpr int kRows = 8;
// Where groups are chained: 14 sums, 14 totals, two panels and a broadcast take 31 of 32 registers.
constexpr int kChainedRows = 7;

using Sums = int32_t[kPanels][kPanelColumns];
using Totals = float[kPanels][kPanelColumns];

// Inputs begin..end-1 of the panels that tiles are multiplied with.
struct Block {
  const IntegerMatrix& w;
  size_t panel;
  size_t begin, end;
  size_t group;                                   // of `begin`
  const int8_t* bytes[kPanels];                   // of each panel, from input `begin` on
  const float *scale[kPanels], *offset[kPanels];  // of each panel, from group 0 on; offset NULL: none

  bool is_last() const { return end == w.padded_inputs; }
  bool starts_group() const { return begin == group * w.group_inputs; }
  size_t group_end(size_t g) const { return g + 1 < w.groups ? (g + 1) * w.group_inputs : w.padded_inputs; }
};

// Inlined always: GCC 12 finds that a function that only fetches has no effect, and drops the call.
[[gnu::always_inline]] inline void Fetch(const uint8_t* line) {
  _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T1);
}

// What a tile fetches into L2 while it multiplies: from `begin` on, `step` bytes a step, a line at most.
struct FetchedAlong {
  const uint8_t* begin;
  size_t step;

  FetchedAlong After(size_t inputs) const { return {begin + inputs / kStepInputs * step, step}; }
};

// The rows of a tile.
struct Rows {
  const uint8_t* codes;  // those that input `begin` of the block reads
  size_t stride;
  Sums* sums;
  Totals* totals;
  const float* group_sums;  // of the codes, of group 0; those of the next one lie group_stride further
  size_t group_stride;
  const float *a_scale, *a_offset;
  float* y;
  size_t ldy;
  FetchedAlong next;
};

// The rows and panels of a tile are unrolled always: each has a register of its own.
#define BITPRESS_FOR_ROWS _Pragma("GCC unroll 8") for (int r = 0; r < R; ++r)
#define BITPRESS_FOR_PANELS _Pragma("GCC unroll 2") for (int p = 0; p < P; ++p)

// "Changes" a sum where it is. Left to itself GCC 12 copies all of them twice a step where groups end in the same
// function (50 % of the time).
inline void KeepInPlace([[maybe_unused]] __m512i& sums) {
#ifndef BITPRESS_EMULATE  // where __m512i is no register
  asm("" : "+v"(sums));
#endif
}

// What pointers lead to is loaded anew after this, instead of being kept, or spilled to the registers of a tile.
inline void ForgetMemory() { asm volatile("" : : : "memory"); }

// acc[r][p] += codes of row r times panel p, over `inputs` inputs, a multiple of kBlockInputs.
template <int R, int P>
[[gnu::always_inline]] inline void MultiplySteps(const uint8_t* a, size_t lda, const int8_t* left, const int8_t* right,
                                                 size_t inputs, FetchedAlong next, __m512i (&acc)[R][P]) {
  const uint8_t* end = a + inputs;
  while (a < end) {
#pragma GCC unroll 4
    for (size_t step = 0; step < kBlockInputs / kStepInputs; ++step) {
      const __m512i first = _mm512_loadu_si512(left + step * kStepBytes);
      const __m512i second = P > 1 ? _mm512_loadu_si512(right + step * kStepBytes) : first;
      Fetch(next.begin);
      next.begin += next.step;
      BITPRESS_FOR_ROWS {
        const __m512i codes = BroadcastWord(a + r * lda + step * kStepInputs);
        acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], codes, first);
        if constexpr (P > 1) acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], codes, second);
        BITPRESS_FOR_PANELS KeepInPlace(acc[r][p]);
      }
    }
    a += kBlockInputs;
    left += kBlockInputs * kPanelColumns;
    right += kBlockInputs * kPanelColumns;
  }
}

// One block of a tile of a matrix with one scale an output, by the first formula of integer_linear.h. Its sums go on
// from where the block before has left them; those of the last block become y, or stay where outliers are to follow.
template <int R, int P>
[[gnu::noinline]] void MultiplyTile(const Block& block, const Rows& rows) {
  const IntegerMatrix& w = block.w;
  __m512i acc[R][P];
  BITPRESS_FOR_ROWS {
    BITPRESS_FOR_PANELS acc[r][p] = block.begin == 0 ? _mm512_setzero_si512() : _mm512_load_si512(rows.sums[r][p]);
  }
  MultiplySteps<R, P>(rows.codes, rows.stride, block.bytes[0], block.bytes[P - 1], block.end - block.begin, rows.next,
                      acc);
  if (!block.is_last() || !w.outliers.empty()) {
    BITPRESS_FOR_ROWS { BITPRESS_FOR_PANELS _mm512_store_si512(rows.sums[r][p], acc[r][p]); }
    return;
  }
  BITPRESS_FOR_PANELS {
    const size_t n = (block.panel + p) * kPanelColumns;
    const __mmask16 mask = FirstLanes(w.outputs - n);
    const __m512 scale = _mm512_loadu_ps(w.scale.data() + n), bias = _mm512_loadu_ps(w.bias.data() + n);
    const __m512 code_sum = _mm512_cvtepi32_ps(_mm512_loadu_si512(w.code_sum.data() + n));
    BITPRESS_FOR_ROWS {
      const __m512 a_scale = _mm512_mul_ps(_mm512_set1_ps(rows.a_scale[r]), scale);
      const __m512 a_offset = _mm512_mul_ps(_mm512_set1_ps(rows.a_offset[r]), scale);
      const __m512 constant = _mm512_fmadd_ps(a_offset, code_sum, bias);
      const __m512 out = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][p]), a_scale, constant);
      _mm512_mask_storeu_ps(rows.y + r * rows.ldy + n, mask, out);
    }
  }
}

// The same of a matrix whose groups are chained, by the second formula: the sums of a group are added to the totals.
template <int R, int P>
[[gnu::noinline]] void MultiplyGroups(const Block& block, const Rows& rows) {
  const IntegerMatrix& w = block.w;
  __m512i acc[R][P];
  __m512 total[R][P];
  BITPRESS_FOR_ROWS {
    BITPRESS_FOR_PANELS {
      acc[r][p] = block.starts_group() ? _mm512_setzero_si512() : _mm512_load_si512(rows.sums[r][p]);
      total[r][p] = block.begin == 0 ? _mm512_setzero_ps() : _mm512_load_ps(rows.totals[r][p]);
    }
  }
  size_t k = block.begin;
  for (size_t group = block.group; k < block.end; ++group) {
    ForgetMemory();
    const size_t group_end = block.group_end(group), end = group_end < block.end ? group_end : block.end;
    const size_t done = k - block.begin;
    MultiplySteps<R, P>(rows.codes + done, rows.stride, block.bytes[0] + done * kPanelColumns,
                        block.bytes[P - 1] + done * kPanelColumns, end - k, rows.next.After(done), acc);
    k = end;
    if (end < group_end) break;
    BITPRESS_FOR_PANELS {
      const __m512 scale = _mm512_loadu_ps(block.scale[p] + group * kPanelColumns);
      BITPRESS_FOR_ROWS {
        total[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][p]), scale, total[r][p]);
        acc[r][p] = _mm512_setzero_si512();
      }
    }
    if (block.offset[0] == nullptr) continue;
    const float* code_sums = rows.group_sums + group * rows.group_stride;
    BITPRESS_FOR_PANELS {
      const __m512 offset = _mm512_loadu_ps(block.offset[p] + group * kPanelColumns);
      BITPRESS_FOR_ROWS total[r][p] = _mm512_fmadd_ps(_mm512_set1_ps(code_sums[r]), offset, total[r][p]);
    }
  }
  if (!block.is_last()) {
    BITPRESS_FOR_ROWS {
      BITPRESS_FOR_PANELS {
        _mm512_store_si512(rows.sums[r][p], acc[r][p]);
        _mm512_store_ps(rows.totals[r][p], total[r][p]);
      }
    }
    return;
  }
  BITPRESS_FOR_PANELS {
    const size_t n = (block.panel + p) * kPanelColumns;
    const __mmask16 mask = FirstLanes(w.outputs - n);
    const __m512 weight_sum = _mm512_loadu_ps(w.weight_sum.data() + n), bias = _mm512_loadu_ps(w.bias.data() + n);
    BITPRESS_FOR_ROWS {
      const __m512 constant = _mm512_fmadd_ps(_mm512_set1_ps(rows.a_offset[r]), weight_sum, bias);
      const __m512 out = _mm512_fmadd_ps(_mm512_set1_ps(rows.a_scale[r]), total[r][p], constant);
      _mm512_mask_storeu_ps(rows.y + r * rows.ldy + n, mask, out);
    }
  }
}

#undef BITPRESS_FOR_PANELS
#undef BITPRESS_FOR_ROWS

}  // namespace
}  // namespace bitpress::avx512vnni
