// From canonical rows to panels, in one pass over the codes: unpacked to bytes in L1 or L2, checked, summed, packed
// again.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "kernels/integer_linear/layout.h"

namespace bitpress {
namespace {

constexpr size_t kCacheLine = 64;

// The eight registers of a block from 16 rows of one code a byte; the layout of layout.h, written in words of four
// inputs (fields of a byte cannot run into the next byte). Loops over columns inside: compilers make them vectors.
template <unsigned Bits>
void PackBlock(const uint8_t* codes, size_t stride, uint8_t* block) {
  constexpr size_t kLanes8 = 8;
  uint32_t vectors[Bits][kLanes8] = {};
  for (size_t step = 0; step < kBlockInputs / kPanelDepth; ++step) {
    for (size_t n = 0; n < kPanelColumns; ++n) {
      uint32_t word;
      std::memcpy(&word, codes + n * stride + step * kPanelDepth, sizeof(word));
      const size_t reg = 2 * step + n / kLanes8, lane = n % kLanes8;
      if constexpr (Bits == 8) {
        vectors[reg][lane] = word;
      } else if constexpr (Bits == 4) {
        vectors[reg / 2][lane] |= word << (4 * (reg % 2));
      } else {
        vectors[reg / 4][lane] |= (word & 0x03030303) << (2 * (reg % 4));
        if constexpr (Bits == 3) vectors[2][lane] |= (word >> 2 & 0x01010101) << reg;
      }
    }
  }
  std::memcpy(block, vectors, sizeof(vectors));
}

template <unsigned Bits>
void PackBlocks(const uint8_t* codes, size_t padded_inputs, uint8_t* panel) {
  for (size_t k = 0; k < padded_inputs; k += kBlockInputs, panel += BlockBytes(Bits)) {
    PackBlock<Bits>(codes + k, padded_inputs, panel);
  }
}

// The integer that each of cols codes stands for.
void ToIntegers(const CodeFormat& format, const int8_t* table, const uint8_t* codes, size_t cols, int8_t* integers) {
  switch (format.scheme) {
    case CodeScheme::kTernary:  // two bits of two's complement
      for (size_t j = 0; j < cols; ++j) integers[j] = static_cast<int8_t>((codes[j] ^ 2) - 2);
      break;
    case CodeScheme::kUniform: {
      const int center = 1 << (format.bits - 1);
      for (size_t j = 0; j < cols; ++j) integers[j] = static_cast<int8_t>(codes[j] - center);
      break;
    }
    case CodeScheme::kCodebook:
      for (size_t j = 0; j < cols; ++j) integers[j] = table[codes[j]];
  }
}

int32_t Sum(const int8_t* integers, size_t count) {
  int32_t sum = 0;
  for (size_t j = 0; j < count; ++j) sum += integers[j];
  return sum;
}

// How many steps an int16 lane can take in a panel. In every step, lane j of a column adds the products of inputs 2j
// and 2j + 1 of four, at most 255 (|w| + |w'|). So it holds any steps whose pairs |w| + |w'| sum up to at most
// kLaneLimit; `vpmaddubsw` itself saturates only where a single pair is larger.
//
// Steps are counted in runs, at whose borders every group and every depth block of a kernel starts: any `runs_` runs in
// a row keep the limit, at most 64 steps for ternary weights, 8 for 4-bit ones of the largest magnitude, but about
// twice that for weights as they are.
constexpr int kLaneLimit = 128;
static_assert(255 * kLaneLimit <= 32767, "int16 holds the limit");
constexpr size_t kRunSteps = kGroupGranularity / kPanelDepth, kMostRuns = 31;
static_assert(kRunSteps * kMostRuns <= 255, "IntegerMatrix::int16_steps holds it");

class LaneLimit {
 public:
  // The weights of one output; pairs: room for half as many.
  void Add(const int8_t* integers, size_t inputs, int16_t* pairs) {
    for (size_t j = 0; j < inputs / 2; ++j) {
      pairs[j] = static_cast<int16_t>(std::abs(integers[2 * j]) + std::abs(integers[2 * j + 1]));
    }
    largest_pair_ = std::max<int>(largest_pair_, *std::max_element(pairs, pairs + inputs / 2));
    for (size_t lane = 0; lane < 2; ++lane) {
      // loads: of the runs in the window, of which the first is number `first`.
      int loads[kMostRuns + 1], total = 0;
      size_t first = 0, last = 0;
      const auto drop_first = [&] { total -= loads[first++ % (kMostRuns + 1)]; };
      for (size_t j = lane; j < inputs / 2; ++last) {
        int load = 0;
        for (size_t step = 0; step < kRunSteps && j < inputs / 2; ++step, j += 2) load += pairs[j];
        loads[last % (kMostRuns + 1)] = load;
        total += load;
        if (last - first == runs_) drop_first();
        while (total > kLaneLimit) {
          drop_first();
          runs_ = last + 1 - first;
        }
      }
    }
  }
  // See IntegerMatrix::int16_steps.
  uint8_t Steps() const {
    const size_t steps = runs_ > 0 ? runs_ * kRunSteps : static_cast<size_t>(kLaneLimit / largest_pair_);
    return static_cast<uint8_t>(steps);
  }

 private:
  size_t runs_ = kMostRuns;
  int largest_pair_ = 0;
};

}  // namespace

size_t IntegerMatrix::fast_panels() const {
  return panels - static_cast<size_t>(std::count(int16_steps.begin(), int16_steps.end(), 0));
}

IntegerMatrix MakeIntegerMatrix(const PackedWeights& weights, const float* bias) {
  const CodeFormat& format = weights.format;
  IntegerMatrix m;
  m.outputs = weights.outputs;
  m.inputs = weights.inputs;
  m.panels = RoundUp(m.outputs, kPanelColumns) / kPanelColumns;
  m.padded_inputs = RoundUp(m.inputs, kBlockInputs);
  m.bits = format.bits;
  m.panel_bytes = m.padded_inputs / kBlockInputs * BlockBytes(m.bits);
  if (m.bits < 8) {
    uint8_t codes[16];
    for (uint8_t i = 0; i < 16; ++i) codes[i] = i;
    ToIntegers(format, weights.table, codes, size_t{1} << m.bits, m.table);
  }
  m.groups = (m.inputs + weights.group_inputs - 1) / weights.group_inputs;
  m.group_inputs = m.groups == 1 ? m.padded_inputs : weights.group_inputs;
  m.packed.reset(static_cast<uint8_t*>(std::aligned_alloc(kCacheLine, RoundUp(m.panels * m.panel_bytes, kCacheLine))));
  if (m.packed == nullptr) throw std::bad_alloc();
  m.scale.resize(m.panels * m.groups * kPanelColumns);
  if (weights.offset != nullptr) m.offset.resize(m.scale.size());
  m.code_sum.resize(m.panels * kPanelColumns);
  m.weight_sum.resize(m.panels * kPanelColumns);
  m.bias.resize(m.panels * kPanelColumns);
  if (bias != nullptr) std::copy(bias, bias + m.outputs, m.bias.begin());
  m.int16_steps.resize(m.panels);
  return m;
}

// The codes of a panel, the integers of one row and their pairs.
size_t PackScratchBytes(const IntegerMatrix& matrix) { return (kPanelColumns + 2) * matrix.padded_inputs; }

size_t PackPanel(const PackedWeights& weights, size_t panel, uint8_t* scratch, IntegerMatrix* matrix) {
  IntegerMatrix& m = *matrix;
  const size_t row_bytes = PackedRowBytes(weights.format, m.inputs), first = panel * kPanelColumns;
  auto* integers = reinterpret_cast<int8_t*>(scratch + kPanelColumns * m.padded_inputs);
  // Padding counts as zero in the sums; in the panel it is code 0, whatever that stands for: its activation codes are
  // zero, and outputs past the last are not written.
  std::memset(scratch, 0, PackScratchBytes(m));
  auto* pairs = reinterpret_cast<int16_t*>(integers + m.padded_inputs);
  const auto center = static_cast<float>(1 << (m.bits - 1));
  LaneLimit limit;
  for (size_t c = 0; c < kPanelColumns && first + c < m.outputs; ++c) {
    const size_t n = first + c;
    uint8_t* codes = scratch + c * m.padded_inputs;
    if (!UnpackCodes(weights.format, weights.codes + n * row_bytes, m.inputs, codes)) return n;
    ToIntegers(weights.format, weights.table, codes, m.inputs, integers);
    if (m.bits == 8) std::memcpy(codes, integers, m.inputs);
    limit.Add(integers, m.padded_inputs, pairs);
    float weight_sum = 0.0f;
    for (size_t g = 0; g < m.groups; ++g) {
      const size_t begin = g * m.group_inputs, count = std::min(m.group_inputs, m.inputs - begin);
      const size_t at = (panel * m.groups + g) * kPanelColumns + c;
      const size_t source = n / weights.group_rows * m.groups + g;
      const int32_t sum = Sum(integers + begin, count);
      m.code_sum[n] += sum;
      m.scale[at] = weights.scale[source];
      weight_sum = std::fma(static_cast<float>(sum), m.scale[at], weight_sum);
      if (m.offset.empty()) continue;
      m.offset[at] = std::fma(center, m.scale[at], weights.offset[source]);
      weight_sum = std::fma(static_cast<float>(count), m.offset[at], weight_sum);
    }
    m.weight_sum[n] = weight_sum;
  }
  m.int16_steps[panel] = limit.Steps();
  uint8_t* packed = m.packed.get() + panel * m.panel_bytes;
  switch (m.bits) {
    case 2:
      PackBlocks<2>(scratch, m.padded_inputs, packed);
      break;
    case 3:
      PackBlocks<3>(scratch, m.padded_inputs, packed);
      break;
    case 4:
      PackBlocks<4>(scratch, m.padded_inputs, packed);
      break;
    default:
      PackBlocks<8>(scratch, m.padded_inputs, packed);
  }
  return m.outputs;
}

}  // namespace bitpress
