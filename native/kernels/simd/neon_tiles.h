// Products of one register tile, up to 4 rows x 16 columns, shared by the linear layers and attention. For neon.cc
// only.
//
// Why 4 x 16: 16 accumulators cover the latency (4) times the throughput (2, on wide cores 4, a cycle) of multiply-adds
// and dot products, and with four panel registers and a register for each row they take 24 of 32. A step of four inputs
// loads 16 + 4 (fp32) or 4 + 1 registers (bytes, of which a row's register serves four steps) for 64 or 16 multiplies.
#pragma once

#include "kernels/simd/neon.h"

namespace bitpress::neondot {

constexpr size_t kTileRows = 4;
constexpr size_t kTileColumns = 16;
// Of bytes: inputs of one dot product, and bytes that they take in a panel: [column][input].
constexpr size_t kStepInputs = 4, kStepBytes = kStepInputs * kTileColumns;
// Bytes of a row are loaded a register at a time.
constexpr size_t kRowStep = 16;

// The rows of a tile are unrolled always: accumulators that the compiler indexes by a variable lie in memory.
#define BITPRESS_FOR_ROWS _Pragma("GCC unroll 4") for (int r = 0; r < R; ++r)

// A row count that the compiler knows.
template <int N>
struct Rows {
  static constexpr int value = N;
};
// Calls f(first row, Rows<R>) over all rows in as few tiles as possible, R <= kTileRows, of nearly equal height.
template <class F>
inline void ForTiles(size_t rows, F f) {
  size_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (size_t row = 0, height; row < rows; row += height, --tiles) {
    height = (rows - row + tiles - 1) / tiles;
    switch (height) {
      case 1:
        f(row, Rows<1>{});
        break;
      case 2:
        f(row, Rows<2>{});
        break;
      case 3:
        f(row, Rows<3>{});
        break;
      default:
        f(row, Rows<4>{});
    }
  }
}

// No load moves above this. Left to itself the compiler loads the panel steps ahead and spills accumulators for it.
inline void HoldLoads() { asm volatile("" : : : "memory"); }

// x + lane kLane of `row` times the panel's 16 columns.
template <int kLane>
inline F32x16 FmaLane(F32x16 x, float32x4_t row, F32x16 panel) {
  return {{vfmaq_laneq_f32(x.a.v, panel.a.v, row, kLane)},
          {vfmaq_laneq_f32(x.b.v, panel.b.v, row, kLane)},
          {vfmaq_laneq_f32(x.c.v, panel.c.v, row, kLane)},
          {vfmaq_laneq_f32(x.d.v, panel.d.v, row, kLane)}};
}

// tile[r] = fma chains over k < depth of a[r * lda + k] * panel[k * 16 + column], in order, from +0.
template <int R>
[[gnu::always_inline]] inline void MultiplyFloat(const float* a, size_t lda, const float* panel, size_t depth,
                                                 F32x16 (&tile)[R]) {
  F32x16 acc[R];
  BITPRESS_FOR_ROWS acc[r] = Zero();
  size_t k = 0;
  for (; k + 4 <= depth; k += 4, panel += 4 * kTileColumns) {
    float32x4_t row[R];
    BITPRESS_FOR_ROWS row[r] = vld1q_f32(a + r * lda + k);
    const F32x16 first = Load(panel);
    BITPRESS_FOR_ROWS acc[r] = FmaLane<0>(acc[r], row[r], first);
    HoldLoads();
    const F32x16 second = Load(panel + kTileColumns);
    BITPRESS_FOR_ROWS acc[r] = FmaLane<1>(acc[r], row[r], second);
    HoldLoads();
    const F32x16 third = Load(panel + 2 * kTileColumns);
    BITPRESS_FOR_ROWS acc[r] = FmaLane<2>(acc[r], row[r], third);
    HoldLoads();
    const F32x16 fourth = Load(panel + 3 * kTileColumns);
    BITPRESS_FOR_ROWS acc[r] = FmaLane<3>(acc[r], row[r], fourth);
  }
  for (; k < depth; ++k, panel += kTileColumns) {
    const F32x16 columns = Load(panel);
    BITPRESS_FOR_ROWS acc[r] = FmaLane<0>(acc[r], vdupq_n_f32(a[r * lda + k]), columns);
  }
  BITPRESS_FOR_ROWS tile[r] = acc[r];
}

// The dot products of bytes: signed codes (offset by 128, below) with signed weights, and unsigned with unsigned.
struct SignedDot {
  using Panel = int8_t;
  // An unsigned code q as the signed byte q - 128: Armv8.2 has no product of unsigned and signed bytes (`usdot` came
  // with i8mm). sum q w = sum (q - 128) w + 128 sum w, exact: int32 wraps around on the way at most.
  static int8x16_t LoadRow(const uint8_t* a) { return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(a), vdupq_n_u8(128))); }
  template <int kLane>
  static I32 Add(I32 acc, const int8_t* panel, int8x16_t row) {
    return {vdotq_laneq_s32(acc.v, vld1q_s8(panel), row, kLane)};
  }
};
struct UnsignedDot {
  using Panel = uint8_t;
  static uint8x16_t LoadRow(const uint8_t* a) { return vld1q_u8(a); }
  template <int kLane>
  static I32 Add(I32 acc, const uint8_t* panel, uint8x16_t row) {
    const uint32x4_t sum = vdotq_laneq_u32(vreinterpretq_u32_s32(acc.v), vld1q_u8(panel), row, kLane);
    return {vreinterpretq_s32_u32(sum)};
  }
};

template <class Dot, int kLane, int R, class Row>
[[gnu::always_inline]] inline void AddStep(const typename Dot::Panel* panel, const Row (&row)[R], I32x16 (&acc)[R]) {
  HoldLoads();
  panel += kLane * kStepBytes;
  BITPRESS_FOR_ROWS {
    acc[r].a = Dot::template Add<kLane>(acc[r].a, panel, row[r]);
    acc[r].b = Dot::template Add<kLane>(acc[r].b, panel + 16, row[r]);
    acc[r].c = Dot::template Add<kLane>(acc[r].c, panel + 32, row[r]);
    acc[r].d = Dot::template Add<kLane>(acc[r].d, panel + 48, row[r]);
  }
}

// tile[r] += sum over `depth` inputs (a multiple of kRowStep) of a * panel.
template <class Dot, int R>
[[gnu::always_inline]] inline void MultiplyBytes(const uint8_t* a, size_t lda, const typename Dot::Panel* panel,
                                                 size_t depth, I32x16 (&tile)[R]) {
  I32x16 acc[R];
  BITPRESS_FOR_ROWS acc[r] = tile[r];
  for (size_t k = 0; k < depth; k += kRowStep, panel += kRowStep * kTileColumns) {
    decltype(Dot::LoadRow(a)) row[R];
    BITPRESS_FOR_ROWS row[r] = Dot::LoadRow(a + r * lda + k);
    AddStep<Dot, 0>(panel, row, acc);
    AddStep<Dot, 1>(panel, row, acc);
    AddStep<Dot, 2>(panel, row, acc);
    AddStep<Dot, 3>(panel, row, acc);
  }
  BITPRESS_FOR_ROWS tile[r] = acc[r];
}

#undef BITPRESS_FOR_ROWS

}  // namespace bitpress::neondot
