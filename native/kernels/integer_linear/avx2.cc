// The kernel that most of the time goes to: tiles of six rows, multiplied by `vpmaddubsw` (avx2_tiles.h).
//
// Panels of which a pair of weights could saturate `vpmaddubsw` go through int16 instead.
#include "kernels/integer_linear/avx2_sweep.h"

namespace bitpress::avx2 {
namespace {

// Of panels of int16, twice as wide as bytes, and so are the rows.
constexpr size_t kWideDepth = kDepthBlock / 2;
static_assert(kWideDepth % kBlockInputs == 0, "whole blocks");

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

class Products {
 public:
  static constexpr int kRows = kTileRows;
  static size_t DepthBlock(size_t int16_steps) { return int16_steps > 0 ? kDepthBlock : kWideDepth; }

  void SetPanel(const int8_t* bytes, size_t steps, size_t int16_steps) {
    panel_ = bytes;
    steps_ = steps;
    int16_steps_ = int16_steps;
    if (int16_steps == 0) WidenPanel(bytes, steps, wide_panel_);
  }

  // int32 holds 255 * 128 * kMaxIntegerInputs. A function: inlined, it depends on what surrounds these loops whether
  // GCC 12 keeps their accumulators in registers.
  template <int R>
  [[gnu::noinline]] void Multiply(const uint8_t* a, size_t lda, const TileSums& to) {
    if (int16_steps_ > 1) {
      SumSteps<R>(steps_, int16_steps_, to, [&](size_t step, size_t count, auto& tile) {
        MultiplyInInt16<R>(a + step * kStepInputs, lda, panel_ + step * kStepBytes, count, tile);
      });
    } else if (int16_steps_ == 1) {
      SumSteps<R>(steps_, steps_, to, [&](size_t step, size_t count, auto& tile) {
        MultiplyInInt32<R>(a + step * kStepInputs, lda, panel_ + step * kStepBytes, count, tile);
      });
    } else {
      // `vpmaddubsw` could saturate: the products of pairs, |sum| <= 2 * 255 * 128, come from `vpmaddwd` in int32.
      // [Two fast tiles, each with one half of every weight, so that neither saturates: half the speed of one.]
      for (size_t r = 0; r < R; ++r) WidenRow(a + r * lda, steps_ * kStepInputs, wide_rows_[r]);
      SumSteps<R>(steps_, steps_, to, [&](size_t step, size_t count, auto& tile) {
        MultiplyInt16<R>(wide_rows_[0] + step * kStepInputs, kWideDepth, wide_panel_ + step * kStepBytes, 2 * count,
                         tile);
      });
    }
  }

 private:
  const int8_t* panel_;
  size_t steps_, int16_steps_;
  alignas(64) int16_t wide_panel_[kWideDepth * kPanelColumns];
  int16_t wide_rows_[kTileRows][kWideDepth];
};

}  // namespace

void IntegerLinear(const uint8_t* a, size_t lda, const float* a_scale, const float* a_offset, size_t m,
                   const IntegerMatrix& w, size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
  SweepPanels<Products>(a, lda, a_scale, a_offset, m, w, panel_begin, panel_end, y, ldy);
}

}  // namespace bitpress::avx2
