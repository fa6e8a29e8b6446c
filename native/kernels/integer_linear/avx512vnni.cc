// AVX-512 VNNI: the sweep of avx2_sweep.h with the tiles of avx512_tiles.h.
#include "kernels/integer_linear/avx2_sweep.h"
#include "kernels/integer_linear/avx512_tiles.h"
#include "kernels/integer_linear/avx512_unpack.h"

namespace bitpress::avx512vnni {
namespace {

using avx2::CodeRows;
using avx2::kRowBlock;

// Both unpacked panels take 24 KB: with 8 x 768 bytes of activations they fit a 32 KB L1, and 768 inputs are one block.
constexpr size_t kDepthBlock = 768;
static_assert(kDepthBlock % kGroupGranularity == 0, "a group ends where a step does");

struct alignas(64) Workspace {
  int8_t panel[kPanels][kDepthBlock * kPanelColumns];
  Sums sums[kRowBlock];      // of a group that is not complete
  Totals totals[kRowBlock];  // t of integer_linear.h
  int32_t code_sums[avx2::kCodeSums];
  float group_sums[avx2::kCodeSums];  // the same as floats, [group][row]
};

// group_sums of code_sums.
void OrderByGroup(size_t rows, size_t groups, Workspace& work) {
  for (size_t row = 0; row < rows; ++row) {
    for (size_t group = 0; group < groups; ++group) {
      work.group_sums[group * rows + row] = static_cast<float>(work.code_sums[row * groups + group]);
    }
  }
}

// Weights that come next, fetched into L2 in equal portions for each step of each tile of rows, as far as a line a step
// will do; the rest before the tile. [All of a portion before the tile, as Fetcher of weight_fetcher.h does: that many
// lines at once fill the buffers for lines that are missing in L1, and 8-bit weights, which tiles read from L2, wait
// behind them: 5 to 10 % of the time with 64 rows, 30 % with 16.]
class StepFetcher {
 public:
  StepFetcher(const uint8_t* begin, size_t bytes, size_t tiles, size_t inputs) : at_(begin) {
    const size_t steps = tiles * inputs / kStepInputs;
    step_ = (bytes + steps - 1) / steps;
  }
  // What a tile of that many inputs is to fetch while it multiplies.
  FetchedAlong Take(size_t inputs) {
    const size_t steps = inputs / kStepInputs, along = step_ < kLine ? step_ : kLine;
    const uint8_t *begin = at_, *rest = at_ + (step_ - along) * steps;
    at_ += step_ * steps;
    for (; begin < rest; begin += kLine) Fetch(begin);
    return {rest, along};
  }

 private:
  static constexpr size_t kLine = 64;
  const uint8_t* at_;
  size_t step_;
};

// All rows of a sweep with P panels. next_bytes: of the packed panels behind these that will be swept next.
template <int P>
void SweepPanels(const CodeRows& codes, const float* a_scale, const float* a_offset, const IntegerMatrix& w,
                 size_t panel, size_t next_bytes, const UnpackTables& tables, Workspace& work, float* y, size_t ldy) {
  const size_t most_rows = w.is_chained() ? kChainedRows : kRows;
  StepFetcher next(w.packed.get() + (panel + P) * w.panel_bytes, next_bytes, (codes.count + most_rows - 1) / most_rows,
                   w.padded_inputs);
  for (size_t k = 0, depth; k < w.padded_inputs; k += depth) {
    const size_t code = k % w.term_inputs;  // that input k reads
    depth = w.term_inputs - code < kDepthBlock ? w.term_inputs - code : kDepthBlock;
    Block block = {w, panel, k, k + depth, k / w.group_inputs, {}, {}, {}};
    for (int p = 0; p < P; ++p) {
      const uint8_t* packed = w.packed.get() + (panel + p) * w.panel_bytes + k / kBlockInputs * BlockBytes(w.bits);
      block.bytes[p] = UnpackBlocks(packed, w.bits, depth / kBlockInputs, tables, work.panel[p]);
      const size_t of_panel = (panel + p) * w.groups * kPanelColumns;
      block.scale[p] = w.scale.data() + of_panel;
      block.offset[p] = w.offset.empty() ? nullptr : w.offset.data() + of_panel;
    }
    const auto multiply = [&](auto tile, size_t row) {
      tile(block,
           {codes.codes + row * codes.stride + code, codes.stride, work.sums + row, work.totals + row,
            work.group_sums + row, codes.count, a_scale + row, a_offset + row, y + row * ldy, ldy, next.Take(depth)});
    };
    if (w.is_chained()) {
      avx2::ForTiles<kChainedRows>(
          codes.count, [&](size_t row, auto height) { multiply(MultiplyGroups<decltype(height)::value, P>, row); });
    } else {
      avx2::ForTiles<kRows>(codes.count,
                            [&](size_t row, auto height) { multiply(MultiplyTile<decltype(height)::value, P>, row); });
    }
  }
  if (w.outliers.empty()) return;
  for (int p = 0; p < P; ++p) {
    avx2::WriteRowsWithOutliers(work.sums[0][p], sizeof(Sums) / sizeof(int32_t), codes, a_scale, a_offset, w, panel + p,
                                y, ldy);
  }
}

}  // namespace

void IntegerLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
  Workspace work;
  const UnpackTables tables(w);
  avx2::ForSweeps(a, lda, m, w, work.code_sums, [&](size_t row, const CodeRows& rows) {
    if (!w.offset.empty()) OrderByGroup(rows.count, w.groups, work);
    size_t panel = panel_begin;
    for (; panel + kPanels <= panel_end; panel += kPanels) {
      const size_t left = panel_end - panel - kPanels, next = left < kPanels ? left : kPanels;
      SweepPanels<kPanels>(rows, a_scale + row, a_offset + row, w, panel, next * w.panel_bytes, tables, work,
                           y + row * ldy, ldy);
    }
    if (panel < panel_end) {
      SweepPanels<1>(rows, a_scale + row, a_offset + row, w, panel, 0, tables, work, y + row * ldy, ldy);
    }
  });
}

}  // namespace bitpress::avx512vnni
