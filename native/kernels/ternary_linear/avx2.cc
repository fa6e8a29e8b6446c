// The kernel that most of the time goes to.
//
// For each panel of 16 outputs and block of at most kDepthBlock inputs, the 2-bit weights are unpacked once to signed
// bytes in L1, then swept over all rows in tiles of six. A step of a tile takes four inputs: six broadcasts of four
// activation codes, each multiplied with both panel registers (`vpmaddubsw`) and added to int16 accumulators.
//
// Floor: 12 multiplies at 2 a cycle and 12 additions that share the four vector pipes with them: 24 operations / 4 = 6
// cycles for 6 x 16 x 4 = 384 products, 64 a cycle.
//
// [Widening to int32 at every step, `vpmaddwd` with ones: 48 operations instead of 24. Unpacking within the tile: every
//  six rows would pay for it again.]
#include "kernels/simd/avx2.h"

#include "kernels/ternary_linear/layout.h"

namespace bitpress::avx2 {
namespace {

constexpr size_t kStepBytes = kPanelColumns * kPanelDepth;

// Steps for which an int16 accumulator cannot overflow: `vpmaddubsw` adds two products of a code in 0..255 and a weight
// in -1..1, so one step changes a lane by at most 510, and 64 * 510 = 32,640 <= 32,767. (Nor can the instruction
// itself saturate, at 510.)
constexpr size_t kInt16Steps = 64;
static_assert(kInt16Steps * 2 * 255 <= 32767, "int16 holds the sums of kInt16Steps steps");

// The unpacked panel block takes 12 KB of a 32 KB L1, next to one tile of activations (6 x 768) and the sums below.
constexpr size_t kDepthBlock = 768;
// Rows of a sweep: their int32 sums, kept between depth blocks, take 132 * 64 = 8.3 KB, which still fits beside them,
// and a text of 128 tokens is one sweep.
constexpr size_t kRowBlock = 132;
static_assert(kRowBlock % kTileRows == 0 && kDepthBlock % kBlockInputs == 0, "whole tiles and blocks");

struct alignas(64) Workspace {
  int8_t panel[kDepthBlock * kPanelColumns];
  int32_t sums[kRowBlock][kPanelColumns];
};

// blocks packed blocks to kStepBytes signed bytes a step.
void UnpackPanel(const uint8_t* packed, size_t blocks, int8_t* panel) {
  const __m256i low_bits = _mm256_set1_epi8(3);
  // Indexed by the two bits of a weight.
  const __m256i weights = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
  const auto decode = [&](__m256i bits) { return I32{_mm256_shuffle_epi8(weights, _mm256_and_si256(bits, low_bits))}; };
  for (size_t block = 0; block < blocks; ++block) {
    const __m256i bits = LoadInt(packed + block * sizeof(TernaryBlock)).v;
    StoreInt(panel, decode(bits));
    StoreInt(panel + 32, decode(_mm256_srli_epi16(bits, 2)));
    StoreInt(panel + 64, decode(_mm256_srli_epi16(bits, 4)));
    StoreInt(panel + 96, decode(_mm256_srli_epi16(bits, 6)));
    panel += 2 * kStepBytes;
  }
}

// sums[r][n] += sum over 4 * steps inputs k of a[r * lda + k] * panel weight (k, n), exact: int32 holds 255 * inputs up
// to 8 million inputs.
template <int R>
void MultiplyTile(const uint8_t* a, size_t lda, const int8_t* panel, size_t steps, int32_t (*sums)[kPanelColumns]) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (size_t begin = 0; begin < steps; begin += kInt16Steps) {
    const size_t end = steps - begin < kInt16Steps ? steps : begin + kInt16Steps;
    I32 acc[R][2];  // int16, two lanes a column; at most kInt16Steps steps
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = I32{_mm256_setzero_si256()};
    for (size_t step = begin; step < end; ++step) {
      I32 left = LoadInt(panel + step * kStepBytes), right = LoadInt(panel + step * kStepBytes + 32);
      for (int r = 0; r < R; ++r) {
        const __m256i codes = BroadcastWord(a + r * lda + step * kPanelDepth);
        const __m256i left_products = _mm256_maddubs_epi16(codes, left.v);
        const __m256i right_products = _mm256_maddubs_epi16(codes, right.v);
        acc[r][0].v = _mm256_add_epi16(acc[r][0].v, left_products);
        acc[r][1].v = _mm256_add_epi16(acc[r][1].v, right_products);
        HoldOrder(left, right, acc[r][0], acc[r][1]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int half = 0; half < 2; ++half) {
        // The two int16 lanes of a column to one int32.
        int32_t* sum = sums[r] + half * 8;
        StoreInt(sum, LoadInt(sum) + I32{_mm256_madd_epi16(acc[r][half].v, ones)});
      }
    }
  }
}

// y = fma(sum, s_x a, fma(o_x a, code_sum, bias)) of one row.
void WriteRow(const int32_t* sums, float scale, float offset, const TernaryMatrix& w, size_t column, float* y) {
  for (size_t half = 0; half < 2; ++half) {
    const size_t n = column + half * kFloats;
    if (n >= w.outputs) return;
    const F32 code_sum = ToFloat(LoadInt(w.code_sum.data() + n));
    const F32 constant = Fma(F32::Broadcast(offset), code_sum, Load(w.bias.data() + n));
    const F32 out = Fma(ToFloat(LoadInt(sums + half * kFloats)), F32::Broadcast(scale), constant);
    StoreFirst(y + half * kFloats, w.outputs - n, out);
  }
}

}  // namespace

void TernaryLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const TernaryMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
  Workspace work;
  for (size_t row_begin = 0; row_begin < m; row_begin += kRowBlock) {
    const size_t rows = m - row_begin < kRowBlock ? m - row_begin : kRowBlock;
    for (size_t p = panel_begin; p < panel_end; ++p) {
      __builtin_memset(work.sums, 0, rows * sizeof(work.sums[0]));
      for (size_t k = 0; k < w.padded_inputs; k += kDepthBlock) {
        const size_t depth = w.padded_inputs - k < kDepthBlock ? w.padded_inputs - k : kDepthBlock;
        const uint8_t* packed = w.packed.data() + p * w.panel_bytes + k / kBlockInputs * sizeof(TernaryBlock);
        UnpackPanel(packed, depth / kBlockInputs, work.panel);
        ForTiles(rows, [&](size_t row, auto height) {
          MultiplyTile<decltype(height)::value>(a + (row_begin + row) * lda + k, lda, work.panel, depth / kPanelDepth,
                                                work.sums + row);
        });
      }
      const size_t column = p * kPanelColumns;
      for (size_t row = 0; row < rows; ++row) {
        const size_t i = row_begin + row;
        WriteRow(work.sums[row], a_scale[i] * w.scale, a_offset[i] * w.scale, w, column, y + i * ldy + column);
      }
    }
  }
}

}  // namespace bitpress::avx2
